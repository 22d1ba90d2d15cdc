package rest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5emb"

	"github.com/plugcast/plugcast/domain"
)

const securityScheme = "bearer"

const overview = `Commands, device updates and reads of plugcast.

Send a token as ` + "`Authorization: Bearer`" + `. Every operation that changes something takes an ` + "`Idempotency-Key`" + ` of 1 to 255
visible ASCII characters: for 24 hours, the server executes a request only once per key, and answers repeats alike.
Commands answer 202 with the position of the last event that they appended; with ` + "`?wait=5s`" + ` they wait for the outcome.
Reads take ` + "`?after-position=`" + ` and wait until the read model has that event. The server refuses unknown query parameters, so
that it does not ignore a misspelt filter.

Every error is ` + "`application/problem+json`" + ` (RFC 9457) with one of these codes:

`

// newDocument returns the OpenAPI document without operations. It turns huma's own
// handlers off: they render the document lazily without a lock, and their page loads
// scripts from another host.
func newDocument(version string) huma.Config {
	schemas := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	nullable[bool](schemas)
	nullable[int](schemas)
	nullable[float64](schemas)
	nullable[string](schemas)
	nullable[time.Time](schemas)
	nullable[domain.ConnectionID](schemas)
	nullable[[]string](schemas)
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "plugcast", Version: version, Description: overview + codeTable()},
			Components: &huma.Components{
				Schemas: schemas,
				SecuritySchemes: map[string]*huma.SecurityScheme{
					securityScheme: {Type: "http", Scheme: "bearer", BearerFormat: "JWT"},
				},
			},
		},
		Formats:       map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat},
		DefaultFormat: "application/json",
	}
}

// jsonFormat decodes bodies, and refuses texts that Postgres cannot store and
// duplicate members.
var jsonFormat = huma.Format{
	Marshal: huma.DefaultJSONFormat.Marshal,
	Unmarshal: func(data []byte, v any) error {
		if err := domain.CheckStorableJSON(data); err != nil {
			return err
		}
		if err := domain.CheckDuplicateMembers(data, "attributes"); err != nil {
			return err
		}
		return json.Unmarshal(data, v)
	},
}

// nullable makes the document describe an optional field as a pointer.
func nullable[T any](schemas huma.Registry) {
	schemas.RegisterTypeAlias(reflect.TypeFor[domain.Optional[T]](), reflect.TypeFor[*T]())
}

// serveDocument renders the document once, after all operations are registered.
func (a *API) serveDocument() error {
	var err error
	if a.document, err = json.Marshal(a.huma.OpenAPI()); err != nil {
		return fmt.Errorf("rest: write OpenAPI document: %w", err)
	}
	a.mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(a.document)
	})
	page := v5emb.NewHandlerWithConfig(swgui.Config{Title: "plugcast", SwaggerJSON: "/openapi.json", BasePath: "/docs/"})
	a.mux.Handle("GET /docs/", withContentPolicy(page))
	a.mux.Handle("GET /docs", http.RedirectHandler("/docs/", http.StatusMovedPermanently))
	return nil
}

// withContentPolicy restricts the page to this host, so that it works offline and
// leaks nothing. Swagger UI needs inline scripts and styles.
func withContentPolicy(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self' 'unsafe-inline'; "+
			"style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'")
		w.Header().Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

// OpenAPI returns the document that /openapi.json serves. The caller must not change it.
func (a *API) OpenAPI() []byte { return a.document }
