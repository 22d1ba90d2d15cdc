package outbound

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Devices counts the devices that the platform has stored.
type Devices interface {
	// Count returns how many devices last came through a connection. It may stop counting
	// at most. It includes everything that was appended before the call.
	Count(ctx context.Context, c domain.ConnectionRef, most int) (int, error)
}

// deviceLimit bounds how many devices one connection may introduce, and asks the quota of
// its system. A device chooses its own name, and each name leaves permanent rows and
// entries. Each process counts only its own devices that are not in the log yet, so
// together the processes may admit a few more. It is safe for concurrent use.
type deviceLimit struct {
	config  *Config
	devices Devices
	quota   domain.DeviceQuota

	mu       sync.Mutex
	reserved map[domain.ConnectionRef]int // new devices that are not in the log yet
	full     map[domain.ConnectionRef]fullConnection
}

// fullConnection has the detail with which the devices of a full connection are refused,
// and the time until which its devices are not counted again.
type fullConnection struct {
	detail string
	until  time.Time
}

// recountAfter is how long the devices of a full connection are not counted again.
const recountAfter = 10 * time.Second

func newDeviceLimit(config *Config, devices Devices, quota domain.DeviceQuota) *deviceLimit {
	return &deviceLimit{
		config: config, devices: devices, quota: quota,
		reserved: map[domain.ConnectionRef]int{}, full: map[domain.ConnectionRef]fullConnection{},
	}
}

// reserve reserves a place for a new device. The caller must call release, with whether
// the log has the device. If there is no place, reserve returns the reason for operators.
func (l *deviceLimit) reserve(
	ctx context.Context, c domain.ConnectionRef, device domain.DeviceID,
) (release func(appended bool), refusal string, err error) {
	now := time.Now()
	l.mu.Lock()
	if f := l.full[c]; now.Before(f.until) {
		l.mu.Unlock()
		return nil, f.detail, nil
	}
	delete(l.full, c)
	l.reserved[c]++
	reserved := l.reserved[c]
	l.mu.Unlock()
	admission, refusal, err := l.check(ctx, c, device, reserved)
	if err == nil && refusal == "" {
		return func(appended bool) {
			l.release(c)
			admission.Settle(appended)
		}, "", nil
	}
	l.release(c)
	if refusal != "" {
		l.mu.Lock()
		if len(l.full) >= mostRemembered {
			clear(l.full)
		}
		l.full[c] = fullConnection{detail: refusal, until: now.Add(recountAfter)}
		l.mu.Unlock()
	}
	return nil, refusal, err
}

// check counts the devices of a connection with this many reserved places, and asks the
// quota.
func (l *deviceLimit) check(
	ctx context.Context, c domain.ConnectionRef, device domain.DeviceID, reserved int,
) (a domain.Admission, refusal string, err error) {
	// A device that is in the log but still has its place counts twice for a moment.
	stored, err := l.devices.Count(ctx, c, l.config.MaxDevices)
	if err != nil {
		return a, "", err
	}
	if stored+reserved > l.config.MaxDevices {
		return a, fmt.Sprintf("the connection has %d devices already, and may have %d", stored+reserved-1, l.config.MaxDevices), nil
	}
	a, err = l.quota.Admit(ctx, c.System, []domain.DeviceID{device})
	if err == nil && a.Refused != nil {
		refusal = a.Refusal().Detail
	}
	return a, refusal, err
}

func (l *deviceLimit) release(c domain.ConnectionRef) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reserved[c]--; l.reserved[c] == 0 {
		delete(l.reserved, c)
	}
}
