package streams

import (
	"log/slog"
	"sync"
)

// outage is shared by the readers of a log and the consumers that read on their own. Each of
// them notices by itself that Redis is away. The outage logs one warning for all of them.
type outage struct {
	logger *slog.Logger

	mu   sync.Mutex
	away int  // number of those that lost Redis and have neither reconnected nor stopped
	back bool // at least one of them has reconnected
}

// disconnected notes that one of them lost Redis. One call of reconnected or stopped must
// follow.
func (o *outage) disconnected(of slog.Attr, err error) {
	o.mu.Lock()
	o.away++
	first := o.away == 1
	if first {
		o.back = false
	}
	o.mu.Unlock()
	o.logger.Debug("lost Redis while reading the log", of, "error", err)
	if first {
		o.logger.Warn("lost Redis while following the log; trying again", of, "error", err)
	}
}

// reconnected notes that one of them has Redis again.
func (o *outage) reconnected(of slog.Attr) {
	o.logger.Debug("reading the log again", of)
	o.end(true)
}

// stopped notes that one of them ended while Redis was away.
func (o *outage) stopped() { o.end(false) }

// end counts one that is no longer away. With the last one the outage is over, unless all of
// them stopped.
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
