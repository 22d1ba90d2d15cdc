package streams

import (
	"log/slog"
	"sync"
)

// outage is what the follows of a log have in common while Redis is away. Each
// of them notices by itself, and one warning is enough for all.
type outage struct {
	logger *slog.Logger

	mu   sync.Mutex
	away int  // follows that broke off and are not back
	back bool // some of those that broke off are back
}

// brokeOff says that a follow lost Redis. It is followed by one call of cameBack
// or gaveUp.
func (o *outage) brokeOff(partition int, err error) {
	o.mu.Lock()
	o.away++
	first := o.away == 1
	if first {
		o.back = false
	}
	o.mu.Unlock()
	o.logger.Debug("a follow of the log broke off", "partition", partition, "error", err)
	if first {
		o.logger.Warn("following the log broke off; trying again", "partition", partition, "error", err)
	}
}

// cameBack says that a follow that broke off has Redis again.
func (o *outage) cameBack(partition int) {
	o.logger.Debug("a follow of the log is back", "partition", partition)
	o.end(true)
}

// gaveUp says that a follow that broke off was told to end.
func (o *outage) gaveUp() { o.end(false) }

// end counts a follow that is not away any more. With the last one the outage is
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
