package domain

// DeviceRef names a device, which is one switch channel, across systems.
type DeviceRef struct {
	System SystemID
	Device DeviceID
}

// ConnectionRef names a connection, which is one Shelly credential, across systems.
type ConnectionRef struct {
	System SystemID
	ID     ConnectionID
}

// Actor returns the actor of the events that arrive over the connection.
func (c ConnectionRef) Actor() string { return "shelly:" + string(c.ID) }

// SystemConnection is a connection and the system that it belongs to.
type SystemConnection struct {
	System SystemID
	*Connection
}
