import assert from "node:assert/strict";
import { test } from "node:test";
import { language, languages } from "../assets/words.js";

test("every language says everything", () => {
  const keys = Object.keys(languages.en).sort();
  for (const texts of Object.values(languages)) assert.deepEqual(Object.keys(texts).sort(), keys);
  assert.equal(language(["fr-CA", "es-AR", "en"]), "es");
  assert.equal(language(["fr"]), "en");
});
