package rooms

import (
	"fmt"
	"time"
)

// Config holds the bounds of a [Hub]. Zero fields take their defaults.
type Config struct {
	TailBytes   int           // bytes of the newest events that a room keeps; default 1 MiB
	FrameBytes  int           // the maximum size of a frame with several events; default 64 KiB
	PageEvents  int           // the maximum number of events per read of the history; default 512
	Readers     int           // the number of concurrent reads of the history; default 8
	ReadTimeout time.Duration // for one page; default 15 s
	Linger      time.Duration // how long a room stays open without members; default 30 s, negative: not at all
	RetryAfter  time.Duration // the first pause after a failure, doubled up to RetryMax; default 100 ms
	RetryMax    time.Duration // default 5 s
}

func (c Config) withDefaults() Config {
	setDefault(&c.TailBytes, 1<<20)
	setDefault(&c.FrameBytes, 64<<10)
	setDefault(&c.PageEvents, 512)
	setDefault(&c.Readers, 8)
	setDefault(&c.ReadTimeout, 15*time.Second)
	setDefault(&c.Linger, 30*time.Second)
	setDefault(&c.RetryAfter, 100*time.Millisecond)
	setDefault(&c.RetryMax, 5*time.Second)
	return c
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Validate reports the first invalid field.
func (c Config) Validate() error {
	for _, bound := range []struct {
		name  string
		value int
	}{
		{"TailBytes", c.TailBytes},
		{"FrameBytes", c.FrameBytes},
		{"PageEvents", c.PageEvents},
		{"Readers", c.Readers},
		{"ReadTimeout", int(c.ReadTimeout)},
		{"RetryAfter", int(c.RetryAfter)},
		{"RetryMax", int(c.RetryMax)},
	} {
		if bound.value < 0 {
			return fmt.Errorf("rooms: config: %s is negative", bound.name)
		}
	}
	return nil
}
