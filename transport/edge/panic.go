package edge

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/plugcast/plugcast/domain/isolate"
)

// Isolate answers a request whose handler panics with refuse, unless the answer has
// begun: then the connection is broken off. net/http would break it off in any case,
// without a count.
func Isolate(next http.Handler, logger *slog.Logger, refuse func(http.ResponseWriter, *http.Request, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &begunWriter{ResponseWriter: w}
		defer func() {
			value := recover()
			if value == nil {
				return
			}
			if err, is := value.(error); is && errors.Is(err, http.ErrAbortHandler) {
				panic(value) // the way to give up on a connection on purpose
			}
			err := isolate.Recovered(logger, "http", value)
			if answer.begun {
				panic(http.ErrAbortHandler)
			}
			refuse(w, r, err)
		}()
		next.ServeHTTP(answer, r)
	})
}

// BrokenPlainly is the refusal for handlers that speak no problem documents.
func BrokenPlainly(w http.ResponseWriter, _ *http.Request, _ error) {
	http.Error(w, "internal error; the server's log has the details", http.StatusInternalServerError)
}

// begunWriter notes whether an answer has begun, or the connection was taken over.
type begunWriter struct {
	http.ResponseWriter
	begun bool
}

// Unwrap lets [http.ResponseController] find the rest of the writer.
func (w *begunWriter) Unwrap() http.ResponseWriter {
	w.begun = true // by a flush or a takeover; a deadline alone is taken for one
	return w.ResponseWriter
}

// WriteHeader implements [http.ResponseWriter].
func (w *begunWriter) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *begunWriter) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}
