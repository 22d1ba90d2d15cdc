package domain

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func hashed(history []Event) []HashedEvent {
	links := make([]HashedEvent, len(history))
	var h Hash
	for i, e := range history {
		h = h.Next(&e)
		links[i] = HashedEvent{Event: e, Hash: h}
	}
	return links
}

func check(links []HashedEvent) error {
	var c ChainVerifier
	for i := range links {
		if err := c.Verify(&links[i]); err != nil {
			return err
		}
	}
	return nil
}

func TestCloudEventReadsBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		for _, l := range hashed(genHistory().Draw(t, "history")) {
			if rapid.Bool().Draw(t, "previous") {
				l.Previous = &Hash{1, 2, 3}
			}
			back, err := ParseCloudEvent(l.AppendCloudEvent(nil))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(l, back); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

// A change to a part of the line that the hash does not cover is found as well.
func TestCloudEventIsExact(t *testing.T) {
	t.Parallel()
	e, err := NewEvent("clinica-sol", DeviceUpdate{DeviceID: "d1", Online: Some(true)}, Cause{Actor: "maria"})
	if err != nil {
		t.Fatal(err)
	}
	e.ID, e.Time, e.Position, e.Seq = "id-1", epoch, Position{Ms: 5}, 1
	l := HashedEvent{Event: e, Hash: (Hash{}).Next(&e)}
	line := string(l.AppendCloudEvent(nil))
	for _, change := range [][2]string{
		{`"subject":"d1"`, `"subject":"d2"`}, {`"/systems/clinica-sol"`, `"/systems/other"`}, {`"seq":1`, `"seq": 1`},
		{`"data":{`, `"data":{"deviceId":"evil"},"data":{`}, {`"actor"`, `"note":"x","actor"`}, {`"systemid":`, `"SystemID":"zz","systemid":`},
	} {
		changed := strings.Replace(line, change[0], change[1], 1)
		var broken *IntegrityError
		if _, err := ParseCloudEvent([]byte(changed)); changed == line || !errors.As(err, &broken) {
			t.Errorf("%s to %s: %v", change[0], change[1], err)
		}
	}
}

// Any change to any event breaks the chain at that event or later.
func TestChainFindsTampering(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		links := hashed(genHistory().Draw(t, "history"))
		if err := check(links); err != nil {
			t.Fatal(err)
		}
		if len(links) < 2 {
			return
		}
		i := rapid.IntRange(0, len(links)-2).Draw(t, "index")
		seq := links[i].Event.Seq
		switch rapid.IntRange(0, 4).Draw(t, "tampering") {
		case 0:
			links[i].Event.Data = append([]byte(" "), links[i].Event.Data...)
		case 1:
			links[i].Event.Actor += "x"
		case 2:
			links = append(links[:i:i], links[i+1:]...)
		case 3:
			links[i], links[i+1] = links[i+1], links[i]
		case 4:
			links[i].Hash[0] ^= 1
		}
		var broken *IntegrityError
		if err := check(links); !errors.As(err, &broken) || broken.Cursor.Seq < seq {
			t.Fatalf("tampering at seq %d was reported as %v", seq, err)
		}
	})
}

// An export may leave events out if the next line contains the previous hash.
func TestChainOfFilteredExport(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := hashed(genHistory().Draw(t, "history"))
		var kept []HashedEvent
		for i, l := range all {
			if rapid.Bool().Draw(t, "keep") {
				if i > 0 {
					l.Previous = &all[i-1].Hash
				}
				kept = append(kept, l)
			}
		}
		if err := check(kept); err != nil {
			t.Fatal(err)
		}
	})
}
