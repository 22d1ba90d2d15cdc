package domain

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// exampleEvents returns three events of one system as a log would return them.
func exampleEvents() []Event {
	data := []Data{
		DeviceUpdate{DeviceID: "plug-1", Online: Some(true), RelayOn: Some(true), PowerW: Some(412.5)},
		EquipmentRegistered{EquipmentID: "laser-1", Name: "Laser"},
		DeviceUpdate{DeviceID: "plug-1", PowerW: Some(0.0)},
	}
	events := make([]Event, len(data))
	for i := range data {
		e, err := NewEvent("clinica-sol", data[i], Cause{Actor: "maria"})
		if err != nil {
			panic(err)
		}
		// The log sets these.
		e.ID = fmt.Sprint("event-", i+1)
		e.Time = time.Date(2026, 11, 23, 18, 0, i, 0, time.UTC)
		e.Position = Position{Ms: uint64(e.Time.UnixMilli())}
		e.Seq = uint64(i + 1)
		events[i] = e
	}
	return events
}

// State.Apply folds events into the state of a system. A field that an update does not contain is unchanged.
func ExampleState_Apply() {
	state := NewState("clinica-sol")
	events := exampleEvents()
	for i := range events {
		changed, err := state.Apply(&events[i])
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s: device %q, equipment %q\n", events[i].Type, changed.Device, changed.Equipment)
	}
	plug := state.Devices["plug-1"]
	fmt.Println("relay on:", *plug.RelayOn, "power:", *plug.PowerW)
	fmt.Println("cursor:", state.Cursor)
	// Output:
	// device-update: device "plug-1", equipment ""
	// equipment-registered: device "", equipment "laser-1"
	// device-update: device "plug-1", equipment ""
	// relay on: true power: 0
	// cursor: 1795456802000-0 (seq 3)
}

// Service.Execute runs a command. Codes tell the caller why a command failed.
func ExampleService_Execute() {
	ctx := context.Background()
	log := newMemory() // a naive log with a projection
	service := newTestService(log)
	operator := Request{Actor: Actor{Subject: "maria", Role: RoleOperator, Systems: []SystemID{"clinica-sol"}}}

	register := RegisterEquipment{EquipmentRegistered{EquipmentID: "laser-1", Name: "Laser"}}
	receipt, err := service.Execute(ctx, "clinica-sol", register, operator)
	fmt.Println("registered at", receipt.Position, err)

	_, err = service.Execute(ctx, "clinica-sol", register, operator)
	fmt.Println(HasCode(err, CodeEquipmentExists), err)

	_, err = service.Execute(ctx, "centro-luna", register, operator)
	fmt.Println(HasCode(err, CodeForbidden), err)
	// Output:
	// registered at 1-0 <nil>
	// true equipment-exists: equipment "laser-1" already exists
	// true forbidden: this token does not cover system "centro-luna"
}

// HashedEvent.AppendCloudEvent writes a line of an export.
func ExampleHashedEvent_AppendCloudEvent() {
	var previous Hash // of the event before; the zero Hash for the first
	event := exampleEvents()[0]
	hashed := HashedEvent{Event: event, Hash: previous.Next(&event)}
	line := string(hashed.AppendCloudEvent(nil))
	fmt.Println(strings.ReplaceAll(line, ",", ",\n"))
	// Output:
	// {"specversion":"1.0",
	// "id":"event-1",
	// "source":"/systems/clinica-sol",
	// "type":"device-update",
	// "subject":"plug-1",
	// "time":"2026-11-23T18:00:00.000000Z",
	// "datacontenttype":"application/json",
	// "systemid":"clinica-sol",
	// "position":"1795456800000-0",
	// "seq":1,
	// "dataversion":1,
	// "actor":"maria",
	// "hash":"011beb7bb630066020e11887a07800c992fbd1c784aca13f4c27c6f70c164b35",
	// "data":{"deviceId":"plug-1",
	// "online":true,
	// "relayOn":true,
	// "powerW":412.5}}
}

// ChainVerifier.Verify finds an altered event in an export.
func ExampleChainVerifier() {
	var lines [][]byte // an export
	var hash Hash
	for _, event := range exampleEvents() {
		hash = hash.Next(&event)
		hashed := HashedEvent{Event: event, Hash: hash}
		lines = append(lines, hashed.AppendCloudEvent(nil))
	}
	lines[2] = []byte(strings.Replace(string(lines[2]), `"powerW":0`, `"powerW":9`, 1))

	var chain ChainVerifier
	for _, line := range lines {
		event, err := ParseCloudEvent(line)
		if err == nil {
			err = chain.Verify(&event)
		}
		if integrity := new(IntegrityError); errors.As(err, &integrity) {
			fmt.Println("seq", integrity.Cursor.Seq, "is wrong:", integrity.Reason)
		}
	}
	fmt.Println(chain.Verified(), "events verified")
	// Output:
	// seq 3 is wrong: its content does not match its hash
	// 2 events verified
}
