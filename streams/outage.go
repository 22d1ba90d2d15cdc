package streams

import (
	"log/slog"
	"sync"
)

// outage is what the reader of a log and the consumers that read on their own have
// in common while Redis is away. Each of them notices by itself, and one warning is
// enough for all.
type outage struct {
	logger *slog.Logger

	mu   sync.Mutex
	away int  // of them that broke off and are not back
	back bool // some of those that broke off are back
}

// disconnected says that one of them lost Redis. It is followed by one call of reconnected
// or stopped.
func (o *outage) disconnected(of slog.Attr, err error) {
	o.mu.Lock()
	o.away++
	first := o.away == 1
	if first {
		o.back = false
	}
	o.mu.Unlock()
	o.logger.Debug("reading the log broke off", of, "error", err)
	if first {
		o.logger.Warn("following the log broke off; trying again", of, "error", err)
	}
}

// reconnected says that one that broke off has Redis again.
func (o *outage) reconnected(of slog.Attr) {
	o.logger.Debug("reading the log again", of)
	o.end(true)
}

// stopped says that one that broke off was told to end.
func (o *outage) stopped() { o.end(false) }

// end counts one that is not away any more. With the last one the outage is
// over, unless all of them gave up.
func (o *outage) end(back bool) {
	o.mu.Lock()
	o.away--
	o.back = o.back || back
	over := o.away == 0 && o.back
	o.mu.Unlock()
	if over {
		o.logger.Info("following the log again")
	}
}
