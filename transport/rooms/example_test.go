package rooms_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/testpeer/clienttest"
)

// frames is a sink that hands its frames to a client. Deliver must not block: the channel has room for one frame, and the
// room sends no second one before Sent.
type frames chan rooms.Frame

func (f frames) Deliver(frame rooms.Frame) { f <- frame }
func (f frames) Restarted(domain.Cursor)   {}

// A client joins the room of a system, resumes after the position that it saw last, and gets what it missed and then what
// is new. The source here is in memory; in production it is a timeline.
func ExampleHub_Join() {
	source := clienttest.NewSource()
	before := source.Append("clinica-sol", clienttest.Update("plug-1", 60), clienttest.Update("plug-1", 0))

	hub, err := rooms.New(source, rooms.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer hub.Close()

	client := make(frames, 1)
	seen := before[0].Position
	subscription, joined, err := hub.Join(context.Background(), "clinica-sol", rooms.Options{After: &seen}, client)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer subscription.Leave()
	fmt.Println("nothing is missing:", joined.Recovered)
	subscription.Start() // no frame comes before

	next := func() {
		frame := <-client
		var event domain.Event // more than one event would be a JSON array
		if err := json.Unmarshal(frame.Bytes, &event); err != nil {
			fmt.Println(err)
		}
		fmt.Println("event", event.Seq, event.Type)
		subscription.Sent() // the room may send the next frame
	}
	next()
	source.Append("clinica-sol", clienttest.Update("plug-1", 75))
	next()
	// Output:
	// nothing is missing: true
	// event 2 device-update
	// event 3 device-update
}
