package intake_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections/quota"
	"github.com/plugcast/plugcast/streams/intake"
)

// Events of other deployments about devices beyond the quota are stored as undecodable, each
// once, and events about other devices unchanged.
func TestTakeOfDevicesTooMany(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.archive()
	defer func() { b.stop() }()
	in := intake.New(b.log, b.store, quota.New(2, b.store, b.log), us, nil)
	of := func(id, device string, at uint64) domain.Event {
		e := update(id, "", at)
		e.Data = json.RawMessage(`{"deviceId":"` + device + `"}`)
		return e
	}
	silent := of("5", "d5", 50)
	silent.Type = domain.TypeDeviceOfflineStatus
	silent.Data = json.RawMessage(`{"deviceId":"d5","online":false,"reason":"reported"}`)
	moved := of("6", "", 60)
	moved.Type, moved.Data = domain.TypeEquipmentRetired, json.RawMessage(`{"equipmentId":"laser"}`)
	first := batch("a", 0, of("1", "d1", 10), of("2", "d2", 20), of("3", "d3", 30))
	second := batch("a", 30, of("4", "d1", 40), silent, moved)
	for _, c := range []struct {
		batch domain.ImportBatch
		want  domain.ImportResult
	}{
		{first, domain.ImportResult{Accepted: 3, Refused: 1, Cursor: domain.Position{Ms: 30}}},
		{second, domain.ImportResult{Accepted: 3, Refused: 1, Cursor: domain.Position{Ms: 60}}},
	} {
		if got, err := in.Import(t.Context(), c.batch); err != nil || got != c.want {
			t.Errorf("took %+v, want %+v, %v", got, c.want, err)
		}
	}
	b.archived()
	if got, err := in.Import(t.Context(), first); err != nil || got.Accepted != 0 || got.Duplicates != 3 {
		t.Errorf("the same again: %+v, %v", got, err)
	}
	for _, e := range b.archived() {
		tooMany := e.ID == "3" || e.ID == "5"
		if tooMany != (e.Type == domain.TypeUndecodable) || tooMany != strings.Contains(string(e.Data), "the system has 2 devices already") {
			t.Errorf("%s is kept as %s: %s", e.ID, e.Type, e.Data)
		}
	}
}
