package domain

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func bridgedEvent(origin string) Event {
	return Event{
		ID: "a", Type: TypeDeviceUpdate, Version: 1, SystemID: "s", Time: time.Date(2026, 11, 23, 18, 0, 0, 123456000, time.UTC),
		Actor: "x", CorrelationID: "k", CausationID: "c", Origin: origin, Data: json.RawMessage(`{"deviceId":"d1"}`),
		Position: Position{Ms: 7}, Seq: 3,
	}
}

// Every written form and the hash contain the origin. An event without one is written and hashed as before origins
// existed.
func TestOriginIsWritten(t *testing.T) {
	t.Parallel()
	ours, theirs := bridgedEvent(""), bridgedEvent("far")
	if b := string(ours.AppendEnvelope(nil)); strings.Contains(b, "origin") {
		t.Errorf("an event of ours is written as %s", b)
	}
	var read Event
	if err := json.Unmarshal(theirs.AppendEnvelope(nil), &read); err != nil || read.Origin != "far" {
		t.Errorf("read %+v, %v", read, err)
	}
	var zero Hash
	// The hash of the same event, computed by the code before origins existed.
	const before = "0365cd42bf54c3a185e870a5fe7f1e99ef64f4af8fb92ab09a1636bacecf12ce"
	if got := zero.Next(&ours).String(); got != before {
		t.Errorf("an event of ours hashes to %s", got)
	}
	if zero.Next(&ours) == zero.Next(&theirs) {
		t.Error("the hash does not cover the origin")
	}
	link := HashedEvent{Event: theirs, Hash: zero.Next(&theirs), Previous: &zero}
	parsed, err := ParseCloudEvent(link.AppendCloudEvent(nil))
	if err != nil || parsed.Event.Origin != "far" {
		t.Errorf("an export's line reads as %+v, %v", parsed, err)
	}
}

func TestAggregateOfAnEvent(t *testing.T) {
	t.Parallel()
	for data, want := range map[Data]Aggregate{
		EquipmentRetired{EquipmentID: "e1"}:                               AggregateInventory,
		ConnectionStopped{ConnectionCommand{ConnectionID: "c1"}}:          AggregateConnection("c1"),
		ConnectionStateChanged{ConnectionID: "c1", State: StateConnected}: "",
		RelaySwitchRequested{CommandID: "x", DeviceID: "d1"}:              "",
	} {
		e, err := NewEvent("s", data, Cause{})
		if err != nil {
			t.Fatal(err)
		}
		if got := e.Aggregate(); got != want {
			t.Errorf("%s is about %q, want %q", e.Type, got, want)
		}
	}
}

// The origin of a device is the deployment that published its last update.
func TestOriginOfADevice(t *testing.T) {
	t.Parallel()
	s := NewState("s")
	for i, origin := range []string{"far", ""} {
		e := bridgedEvent(origin)
		e.Position, e.Seq = Position{Ms: uint64(8 + i)}, uint64(1+i)
		if _, err := s.Apply(&e); err != nil {
			t.Fatal(err)
		}
		if got := s.Devices["d1"].Origin; got != origin {
			t.Errorf("after an update from %q the device is held in %q", origin, got)
		}
	}
}
