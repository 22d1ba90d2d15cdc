package streams

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// Entries that were written before there were origins are read as events of this deployment.
func TestEntryWithoutOrigin(t *testing.T) {
	t.Parallel()
	fields := []string{
		"id", "a", "type", "device-update", "version", "1", "systemId", "clinica-sol", "time", "2026-11-23T18:00:00.123456Z",
		"actor", "x", "correlationId", "c", "causationId", "", "data", `{"deviceId":"d1"}`,
	}
	var e entry
	for _, f := range fields {
		e.fields = append(e.fields, span{len(e.buf), len(e.buf) + len(f)})
		e.buf = append(e.buf, f...)
	}
	if got := e.event(); got.Type != domain.TypeDeviceUpdate || got.Origin != "" || string(got.Data) != `{"deviceId":"d1"}` ||
		got.CorrelationID != "c" {
		t.Errorf("read %+v", got)
	}
}
