package edge

import (
	"errors"
	"log/slog"
	"net/http"

	"github.com/plugcast/plugcast/domain/isolate"
)

// Isolate answers a request with refuse if its handler panics. If the answer has begun,
// Isolate breaks off the connection. net/http would break it off in any case, but it
// keeps no count of panics.
func Isolate(next http.Handler, logger *slog.Logger, refuse func(http.ResponseWriter, *http.Request, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &begunWriter{ResponseWriter: w}
		defer func() {
			value := recover()
			if value == nil {
				return
			}
			if err, is := value.(error); is && errors.Is(err, http.ErrAbortHandler) {
				panic(value) // a handler aborts its connection on purpose with this value
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

// BrokenPlainly is the refuse function of handlers that do not answer with problem
// documents.
func BrokenPlainly(w http.ResponseWriter, _ *http.Request, _ error) {
	http.Error(w, "internal error; the server's log has the details", http.StatusInternalServerError)
}

// begunWriter records whether the answer has begun, or a handler has taken over the
// connection.
type begunWriter struct {
	http.ResponseWriter
	begun bool
}

// Unwrap lets [http.ResponseController] find the rest of the writer.
func (w *begunWriter) Unwrap() http.ResponseWriter {
	w.begun = true // assumes a flush or a takeover, although the caller may only set a deadline
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
