package rest

import (
	"log/slog"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// registerStream serves the event stream, whose handler is in another package, with
// this package's request ids, origin checks and panic handling, and documents it.
func (a *API) registerStream(stream http.Handler) {
	const path = systemPath + "/events/stream"
	a.mux.Handle("GET "+path, stream)
	text := func(name, in, doc string) *huma.Param {
		return &huma.Param{Name: name, In: in, Description: doc, Required: in == "path", Schema: &huma.Schema{Type: huma.TypeString}}
	}
	responses := map[string]*huma.Response{
		"200": {
			Description: "`id` is the position, `event` the type, `data` the envelope",
			Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
		},
	}
	problem := a.huma.OpenAPI().Components.Schemas.Map()["Problem"]
	for _, status := range []string{"400", "401", "403", "429", "503"} {
		responses[status] = &huma.Response{
			Description: "Refused", Content: map[string]*huma.MediaType{problemType: {Schema: problem}},
		}
	}
	a.huma.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "streamEvents", Method: http.MethodGet, Path: path, Tags: []string{"Live"},
		Summary: "Follow the events of a system (Server-Sent Events)",
		Description: "Begins after `Last-Event-ID`, else `lastEventId`, else `after`, else with the next event. The stream ends when the token " +
			"expires. The server refuses unknown parameters. A client can reconnect with a ticket that was made for this stream.",
		Parameters: []*huma.Param{
			text("systemId", "path", "The system (tenant)"),
			text("after", "query", "Begin after this position; after 0-0, the first event ever comes first"),
			text("lastEventId", "query", "The same as Last-Event-ID, for clients that cannot set a header"),
			text("types", "query", "Only these types, separated by commas"), text("devices", "query", "Only these devices, separated by commas"),
			text("type", "query", "The same as types"), text("deviceId", "query", "The same as devices"),
			text("Last-Event-ID", "header", "The same as after; an EventSource sends it when it reconnects"),
		},
		Responses: responses, Security: []map[string][]string{{securityScheme: {}}},
	})
}

// Refuse returns a function that answers with an error as every operation does. It is
// for handlers of other packages, such as the event stream.
func Refuse(log *slog.Logger) func(http.ResponseWriter, *http.Request, error) {
	return func(w http.ResponseWriter, r *http.Request, err error) { problemOf(r.Context(), log, err).write(w) }
}
