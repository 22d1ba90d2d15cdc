package domain

// Flow names a kind of traffic that has its own rate limit per system.
type Flow string

// The flows.
const (
	FlowRequests      Flow = "requests"       // HTTP requests
	FlowJoins         Flow = "joins"          // joins of a room
	FlowFrames        Flow = "frames"         // frames from clients, pings and handshakes
	FlowDeviceUpdates Flow = "device-updates" // published updates and bridged events, counted one by one
	FlowActions       Flow = "actions"        // bridged events that processes react to, counted one by one
)
