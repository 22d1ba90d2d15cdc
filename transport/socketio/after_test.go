package socketio

import (
	"encoding/json"
	"strings"
	"testing"
)

// A client without connection state recovery keeps its position itself and sends it when
// it connects. A join that names no position begins behind it.
func TestAfterInAuth(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	b.append(sol, 3)
	b.append(luna, 2)
	first := b.client("eva:clinica-sol").connect()
	first.join(map[string]any{"systemId": "clinica-sol", "after": "0-0"})
	first.expect("clinica-sol 1", "clinica-sol 2")
	kept := first.offset // the last argument of each event
	c := b.client("eva:clinica-sol,centro-luna")
	c.after = kept
	c.connect()
	first.expect("clinica-sol 3")
	c.join("clinica-sol")
	c.expect("clinica-sol 3")
	c.ask(nil, "leave-system", map[string]any{"systemId": "clinica-sol"})
	c.join(map[string]any{"systemId": "clinica-sol", "after": "0-0"}) // the position of the join wins
	c.expect("clinica-sol 1", "clinica-sol 2", "clinica-sol 3")
	c.join(map[string]any{"systemId": "clinica-sol", "types": []string{"device-update"}}) // it is in the room and continues
	b.append(sol, 1)
	c.expect("clinica-sol 4")

	for after, code := range map[string]string{
		`"yesterday"`: "invalid-position", `17`: "invalid-event", `"0-0","after":"1-0"`: "invalid-event",
		`"0-0","token":"ana:clinica-sol"`: "invalid-event", `"0-0","t\u006fken":"ana:clinica-sol"`: "invalid-event",
	} {
		bad := b.client("eva:clinica-sol")
		bad.after = "PLACE"
		refusal := bad.tryWith(func(auth string) string { return strings.Replace(auth, `"PLACE"`, after, 1) })
		var shown struct{ Data struct{ Code string } }
		if err := json.Unmarshal([]byte(refusal), &shown); err != nil || shown.Data.Code != code {
			t.Errorf("after %s is refused with %s", after, refusal)
		}
	}
}
