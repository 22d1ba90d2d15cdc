package socketio

import (
	"io"
	"net/http"

	"github.com/plugcast/plugcast/transport/socketio/engineio"
)

// Init serves the path at which dashboards of the old system woke their server before they
// connected. It does nothing but answer.
func (s *Server) Init(w http.ResponseWriter, r *http.Request) {
	if s.config.CheckOrigin != nil && !s.config.CheckOrigin(r) {
		http.Error(w, "pages of this origin are not allowed", http.StatusForbidden)
		return
	}
	if engineio.AllowPage(w, r) {
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, `{"ok":true,"path":"/socket.io/"}`+"\n") // fails only if the client is gone
}
