package cloud

import (
	"context"
	"log/slog"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
)

// Connection is a connection as the platform has stored it.
type Connection struct {
	shelly.Connection
	Kind    domain.ConnectionKind
	Name    string
	Stopped bool                   // by command
	State   domain.ConnectionState // as last appended, or ""
}

// Store has the connections and their secrets. Its reads include everything that was
// appended before the call: otherwise a new owner would repeat its predecessor's
// reports, and open the socket of a connection that was stopped.
type Store interface {
	// Connections lists the connections of the partition's systems.
	Connections(ctx context.Context, partition int) ([]Connection, error)
	// Connection returns one connection. It fails with [domain.CodeUnknownConnection].
	Connection(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (Connection, error)
	// Secret returns a connection's secret.
	Secret(ctx context.Context, c shelly.Connection) (Secret, error)
	// SaveSecret saves renewed tokens. If the stored secret has another AuthCode or
	// ClientID, it was replaced during the renewal: then SaveSecret changes nothing
	// and returns nil.
	SaveSecret(ctx context.Context, c shelly.Connection, s Secret) error
	// Devices returns the rows of the devices that last came through the connection.
	Devices(ctx context.Context, system domain.SystemID, id domain.ConnectionID) ([]*domain.Device, error)
}

// Parts are the dependencies of a [Supervisor].
type Parts struct {
	Store      Store
	Known      shelly.Known // for devices that another connection had before
	Events     domain.Appender
	Heartbeats shelly.Heartbeats
	Logger     *slog.Logger // nil discards the log
}
