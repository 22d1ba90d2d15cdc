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
	// Count returns how many devices came in last through a connection. Counting may end
	// at most. It has everything that was appended before the call.
	Count(ctx context.Context, c domain.ConnectionRef, most int) (int, error)
}

// newcomers bounds how many devices one connection may introduce, and asks the quota of
// its system: a device names itself, and each name leaves permanent rows and entries. It
// is safe for concurrent use. Each process counts only its own devices that are not in
// the log yet, so together the processes may admit a few more.
type newcomers struct {
	config  *Config
	devices Devices
	quota   domain.DeviceQuota

	mu   sync.Mutex
	in   map[domain.ConnectionRef]int // admitted and not in the log yet
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

func newNewcomers(config *Config, devices Devices, quota domain.DeviceQuota) *newcomers {
	return &newcomers{
		config: config, devices: devices, quota: quota,
		in: map[domain.ConnectionRef]int{}, full: map[domain.ConnectionRef]fullness{},
	}
}

// enter lets a device in that nobody knows, until leave is called, which says whether
// the device is in the log. It returns why not, for operators, or "".
func (n *newcomers) enter(ctx context.Context, c domain.ConnectionRef, device domain.DeviceID,
) (leave func(appended bool), refusal string, err error) {
	now := time.Now()
	n.mu.Lock()
	if f := n.full[c]; now.Before(f.until) {
		n.mu.Unlock()
		return nil, f.detail, nil
	}
	delete(n.full, c)
	n.in[c]++
	in := n.in[c]
	n.mu.Unlock()
	admission, refusal, err := n.admit(ctx, c, device, in)
	if err == nil && refusal == "" {
		return func(appended bool) {
			n.leave(c)
			admission.Settle(appended)
		}, "", nil
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
	return nil, refusal, err
}

// admit counts the devices of a connection through which so many are being let in, and
// asks the quota.
func (n *newcomers) admit(ctx context.Context, c domain.ConnectionRef, device domain.DeviceID, in int,
) (a domain.Admission, refusal string, err error) {
	// Those that entered before and are appended by now count twice for a moment.
	known, err := n.devices.Count(ctx, c, n.config.MaxDevices)
	if err != nil {
		return a, "", err
	}
	if known+in > n.config.MaxDevices {
		return a, fmt.Sprintf("the connection has %d devices already, and may have %d", known+in-1, n.config.MaxDevices), nil
	}
	a, err = n.quota.Admit(ctx, c.System, []domain.DeviceID{device})
	if err == nil && a.Refused != nil {
		refusal = a.Refusal().Detail
	}
	return a, refusal, err
}

// leave notes that a device that entered is in the log, or left before.
func (n *newcomers) leave(c domain.ConnectionRef) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.in[c]--; n.in[c] == 0 {
		delete(n.in, c)
	}
}
