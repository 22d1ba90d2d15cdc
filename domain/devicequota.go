package domain

import (
	"context"
	"fmt"
	"time"
)

// MaxQuotaWait is how long [Service.Publish] lets the quota look up the devices of one request, of all its systems together.
const MaxQuotaWait = 700 * time.Millisecond

// DeviceQuota bounds how many devices each system has. A device exists from its first
// update, and its name leaves rows and entries for good.
type DeviceQuota interface {
	// Admit admits, in the order given, those of the devices that the system has and as
	// many of the others as it may still have. The caller must settle the Admission. At the
	// deadline of ctx at the latest, Admit stops waiting for a lookup to begin, and decides
	// without it. It fails only when ctx is canceled.
	Admit(ctx context.Context, system SystemID, devices []DeviceID) (Admission, error)
}

// Admission is the answer of a [DeviceQuota]. The zero Admission refuses nothing.
type Admission struct {
	Refused map[DeviceID]bool // the devices beyond the limit; nil when there are none
	Most    int               // how many devices the system may have
	// OnSettle learns whether the new devices that were admitted are in the log; nil when
	// none of them is new.
	OnSettle func(appended bool)
}

// SettleAppend settles by the result of the append. The devices count as appended if nobody
// knows whether they were: the next count corrects that.
func (a Admission) SettleAppend(err error) {
	a.Settle(err == nil || HasCode(err, CodeUnknownOutcome))
}

// Settle reports, once, whether the events of the admitted devices are or will be in the log.
func (a Admission) Settle(appended bool) {
	if a.OnSettle != nil {
		a.OnSettle(appended)
	}
}

// Refusal says why devices are refused.
func (a Admission) Refusal() *Error {
	return Fail(KindConflict, CodeTooManyDevices, fmt.Sprintf("the system has %d devices already, and may have %d", a.Most, a.Most))
}

// Introduces returns the device that the event makes known, if its system does not have
// it yet, or "".
func (e *Event) Introduces() DeviceID {
	if e.Type != TypeDeviceUpdate && e.Type != TypeDeviceOfflineStatus {
		return ""
	}
	return e.Device()
}
