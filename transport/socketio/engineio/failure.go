package engineio

import (
	"encoding/json"
	"net/http"
)

// failure is the refusal of a request. The numbers and texts are those of the Node server,
// which clients and load balancers know.
type failure struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	status  int
}

var (
	failTransport = failure{0, "Transport unknown", http.StatusBadRequest}
	failSession   = failure{1, "Session ID unknown", http.StatusBadRequest}
	failMethod    = failure{2, "Bad handshake method", http.StatusBadRequest}
	failRequest   = failure{3, "Bad request", http.StatusBadRequest}
	failForbidden = failure{4, "Forbidden", http.StatusForbidden}
	failVersion   = failure{5, "Unsupported protocol version", http.StatusBadRequest}
	failBusy      = failure{3, "Too many clients are connecting", http.StatusServiceUnavailable}
	failStopping  = failure{3, "The server is restarting", http.StatusServiceUnavailable}
)

func (f failure) write(w http.ResponseWriter) {
	body, _ := json.Marshal(f) // a number and a string
	w.Header().Set("Content-Type", "application/json")
	if f.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(f.status)
	_, _ = w.Write(body) // fails only if the client is gone
}
