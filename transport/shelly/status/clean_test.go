package status

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
)

// Every reading can be stored, for all texts that a device may send.
func TestTextsThatCannotBeKeptAreReplaced(t *testing.T) {
	t.Parallel()
	r := parse(t, `{"switch:0":{"output":true,"source":"a\u0000\ud800","errors":["\u0000","overtemp"]}}`).Readings()[0]
	source, _ := r.Source.Get()
	faults, _ := r.Errors.Get()
	if source != "a\uFFFD\uFFFD" || len(faults) != 2 || faults[0] != "\uFFFD" || faults[1] != "overtemp" {
		t.Errorf("%q, %q", source, faults)
	}
	if !domain.IsStorableText(source) {
		t.Errorf("%q cannot be kept", source)
	}
}
