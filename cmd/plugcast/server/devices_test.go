package server

import (
	"testing"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/disconnect"
	"github.com/plugcast/plugcast/transport/shelly/connection"
	"github.com/plugcast/plugcast/transport/shelly/switching"
)

// Every event that processes react to is counted as such, and no other.
func TestReactionsAreThoseThatAreLimited(t *testing.T) {
	t.Parallel()
	on := reactionsTo(&devices{connections: &connection.Reactor{}, switching: &switching.Dispatcher{}}, &disconnect.Enforcer{})
	for _, typ := range domain.EventTypes() {
		if (on[typ] != nil) != typ.TriggersReaction() {
			t.Errorf("%s: reacted to %t, counted as an action %t", typ, on[typ] != nil, typ.TriggersReaction())
		}
	}
}
