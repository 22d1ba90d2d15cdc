package domain

import (
	"context"
	"testing"
)

// begunLog is a log in which the first run of every key reached one system.
type begunLog struct {
	*memory
	system SystemID
	failed error // result of Append, unless nil
}

func (l begunLog) Recall(_ context.Context, system SystemID, key Idempotency) (Appended, error) {
	if key.Fingerprint == "other" {
		return Appended{}, Invalid(CodeKeyReused, "this key was used for another request")
	}
	return Appended{Replayed: system == l.system}, nil
}

func (l begunLog) Append(ctx context.Context, events []Event, opts AppendOptions) (Appended, error) {
	if l.failed != nil {
		return Appended{}, l.failed
	}
	return l.memory.Append(ctx, events, opts)
}

// The quota does not refuse a repeat of a batch of which the log has a part.
func TestRepeatBeyondTheQuota(t *testing.T) {
	t.Parallel()
	batch := []SystemUpdate{
		{SystemID: "sol", DeviceUpdate: DeviceUpdate{DeviceID: "a"}},
		{SystemID: "luna", DeviceUpdate: DeviceUpdate{DeviceID: "b"}},
	}
	keyed := admin
	keyed.IdempotencyKey, keyed.Fingerprint = "k", "f"
	other := keyed
	other.Fingerprint = "other"
	for name, c := range map[string]struct {
		begun   SystemID
		request Request
		want    Code // "" if the batch is appended
	}{
		"a part is stored":         {"luna", keyed, ""},
		"nothing is stored":        {"mar", keyed, CodeTooManyDevices},
		"without a key":            {"luna", admin, CodeTooManyDevices},
		"another request's key":    {"luna", other, CodeKeyReused},
		"the other part is stored": {"sol", keyed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, q := newMemory(), &quota{most: 0, known: map[SystemID]map[DeviceID]bool{}}
			s := NewService(begunLog{memory: m, system: c.begun}, m, q, func() string { return "cmd" })
			_, err := s.Publish(t.Context(), batch, c.request)
			if c.want == "" && (err != nil || len(m.events) != 2) || c.want != "" && (!HasCode(err, c.want) || len(m.events) != 0) {
				t.Errorf("%d events, %v", len(m.events), err)
			}
			if q.open != 0 {
				t.Errorf("%d admissions are open", q.open)
			}
		})
	}
}

// Devices of a batch count as appended if nobody knows whether they were.
func TestQuotaOfAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	batch := []SystemUpdate{{SystemID: "sol", DeviceUpdate: DeviceUpdate{DeviceID: "a"}}}
	for code, counts := range map[Code]bool{CodeUnknownOutcome: true, CodeUnavailable: false} {
		m, q := newMemory(), &quota{most: 1, known: map[SystemID]map[DeviceID]bool{}}
		failed := begunLog{memory: m, failed: Fail(KindUnavailable, code, "")}
		s := NewService(failed, m, q, func() string { return "cmd" })
		if _, err := s.Publish(t.Context(), batch, admin); !HasCode(err, code) || q.open != 0 || q.known["sol"]["a"] != counts {
			t.Errorf("%s: %v, and the device counts: %v", code, err, q.known["sol"]["a"])
		}
	}
}
