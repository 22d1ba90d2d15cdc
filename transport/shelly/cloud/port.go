package cloud

import (
	"context"
	"log/slog"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/shelly"
)

// Connection is what the platform knows of a connection.
type Connection struct {
	shelly.Connection
	Kind    domain.ConnectionKind
	Name    string
	Stopped bool                   // by command
	State   domain.ConnectionState // as last appended, or ""
}

// Store is where connections and their secrets are. Its reads have everything that
// was appended before the call: an owner that read less would repeat what its
// predecessor said, and a socket that was stopped would be opened again.
type Store interface {
	// Connections lists the connections of the partition's systems.
	Connections(ctx context.Context, partition int) ([]Connection, error)
	// Connection returns one, or an error with [domain.CodeUnknownConnection].
	Connection(ctx context.Context, system domain.SystemID, id domain.ConnectionID) (Connection, error)
	// Secret returns a connection's secret.
	Secret(ctx context.Context, c shelly.Connection) (Secret, error)
	// SaveSecret keeps what was renewed. It changes nothing and returns nil when the
	// kept secret has another AuthCode or ClientID by now: it was replaced while the
	// old one was being renewed.
	SaveSecret(ctx context.Context, c shelly.Connection, s Secret) error
	// Devices returns the rows of the devices that came through the connection.
	Devices(ctx context.Context, system domain.SystemID, id domain.ConnectionID) ([]*domain.Device, error)
}

// Parts are what a [Runner] works with.
type Parts struct {
	Store      Store
	Known      shelly.Known // for devices that another connection had before
	Events     domain.Appender
	Heartbeats shelly.Heartbeats
	Logger     *slog.Logger // nil drops what is logged
}
