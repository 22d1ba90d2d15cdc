package domain

// DeviceRef names a device, which is one switch channel, across systems.
type DeviceRef struct {
	System SystemID
	Device DeviceID
}

// ConnectionRef names a connection, which is one Shelly credential of a system, across
// systems.
type ConnectionRef struct {
	System SystemID
	ID     ConnectionID
}

// Actor is the author of the events that come in over the connection.
func (c ConnectionRef) Actor() string { return "shelly:" + string(c.ID) }
