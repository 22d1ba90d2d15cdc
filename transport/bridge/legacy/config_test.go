package legacy

import (
	"os"
	"strings"
	"testing"

	"github.com/plugcast/plugcast/transport/bridge"
)

const good = `{"bridges":[{"name":"old","kind":"socketio","url":"http://old.example","ackSeconds":5,"echoSeconds":0,
 "systems":[{"system":"clinica-sol","direction":"both","types":["device-update"]}]}]}`

// The error names the member, and says what it must be.
func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	load := func(text string) error {
		_, err := bridge.Load(strings.NewReader(text), map[string]bridge.Factory{Kind: New(Parts{})}, os.Getenv)
		return err
	}
	if err := load(good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ old, with, want string }{
		"a type it cannot know": {`"device-update"`, `"device-update","relay-switch-requested"`,
			"bridges[0].systems[0].types[1]: must be device-update, device-offline-status or smart-plug-assignment-updated"},
		"too long for an ack":  {`"ackSeconds":5`, `"ackSeconds":1e300`, "bridges[0].ackSeconds: must be 0 to 3600"},
		"less than no time":    {`"ackSeconds":5`, `"ackSeconds":-1`, "bridges[0].ackSeconds: must be 0 to 3600"},
		"too long for an echo": {`"echoSeconds":0`, `"echoSeconds":3601`, "bridges[0].echoSeconds: must be 0 to 3600"},
		"too late":             {`"ackSeconds":5`, `"compare":{"lateSeconds":1e300}`, "bridges[0].compare.lateSeconds: must be 0 to 3600"},
		"a long window":        {`"ackSeconds":5`, `"compare":{"windowSeconds":3601}`, "bridges[0].compare.windowSeconds: must be 0 to 3600"},
		"no such mode":         {`"direction"`, `"mode":"both","direction"`, "bridges[0].systems[0].mode: must be forward or shadow"},
		"the protocol's own":   {`"ackSeconds":5`, `"auth":{"pid":"x"}`, "bridges[0].auth: pid is reserved by the protocol"},
	} {
		if err := load(strings.Replace(good, c.old, c.with, 1)); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}
