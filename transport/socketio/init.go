package socketio

import (
	"io"
	"net/http"
)

// Init answers where dashboards of the old system woke their server before they
// connected. There is nothing to wake.
func (s *Server) Init(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	if origin := r.Header.Get("Origin"); origin != "" {
		header.Add("Vary", "Origin")
		if s.config.CheckOrigin != nil && !s.config.CheckOrigin(r) {
			http.Error(w, "pages of this origin are not allowed", http.StatusForbidden)
			return
		}
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Allow-Credentials", "true")
		header.Set("Access-Control-Allow-Methods", "GET, POST")
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			header.Set("Access-Control-Allow-Headers", asked)
		}
	}
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, `{"ok":true,"path":"/socket.io/"}`+"\n") // a client that is gone needs none
}
