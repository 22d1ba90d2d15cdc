package outbound

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Devices counts the devices that the platform knows.
type Devices interface {
	// Count returns how many devices came in last through a connection, and how many
	// its system has in all. Counting may end at the numbers given. It has everything
	// that was appended before the call.
	Count(ctx context.Context, c domain.ConnectionRef, ofConnection, ofSystem int) (inConnection, inSystem int, err error)
}

// newcomers bounds how many devices one connection, and one system, may introduce: a
// device names itself, and each name leaves permanent rows and entries. It is safe
// for concurrent use. Each process counts only its own devices that are not in the log
// yet, so together the processes may admit a few more.
type newcomers struct {
	config  *Config
	devices Devices

	mu   sync.Mutex
	in   map[domain.ConnectionRef]int // admitted and not in the log yet
	of   map[domain.SystemID]int      // the same
	full map[domain.ConnectionRef]fullness
}

// fullness is the detail with which a full connection is refused, and the time until
// which it is not counted again.
type fullness struct {
	detail string
	until  time.Time
}

// recountAfter is how long a connection with too many devices is not counted again.
const recountAfter = 10 * time.Second

func newNewcomers(config *Config, devices Devices) *newcomers {
	return &newcomers{
		config: config, devices: devices,
		in: map[domain.ConnectionRef]int{}, of: map[domain.SystemID]int{}, full: map[domain.ConnectionRef]fullness{},
	}
}

// enter lets a device in that nobody knows, until leave. It returns why not, for
// operators, or "".
func (n *newcomers) enter(ctx context.Context, c domain.ConnectionRef) (refusal string, err error) {
	now := time.Now()
	n.mu.Lock()
	if f := n.full[c]; now.Before(f.until) {
		n.mu.Unlock()
		return f.detail, nil
	}
	delete(n.full, c)
	n.in[c]++
	n.of[c.System]++
	in, of := n.in[c], n.of[c.System]
	n.mu.Unlock()
	// Those that entered before and are appended by now count twice for a moment.
	most, mostOfSystem := n.config.MaxDevices, n.config.MaxSystemDevices
	known, inSystem, err := n.devices.Count(ctx, c, most, mostOfSystem)
	switch {
	case err != nil:
	case known+in > most:
		refusal = fmt.Sprintf("the connection has %d devices already, and may have %d", known+in-1, most)
	case inSystem+of > mostOfSystem:
		refusal = fmt.Sprintf("the system has %d devices already, and may have %d", inSystem+of-1, mostOfSystem)
	default:
		return "", nil
	}
	n.leave(c)
	if refusal != "" {
		n.mu.Lock()
		if len(n.full) >= mostRemembered {
			clear(n.full)
		}
		n.full[c] = fullness{detail: refusal, until: now.Add(recountAfter)}
		n.mu.Unlock()
	}
	return refusal, err
}

// leave notes that a device that entered is in the log, or left before.
func (n *newcomers) leave(c domain.ConnectionRef) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.in[c]--; n.in[c] == 0 {
		delete(n.in, c)
	}
	if n.of[c.System]--; n.of[c.System] == 0 {
		delete(n.of, c.System)
	}
}
