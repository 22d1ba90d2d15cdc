package domain

import (
	"slices"
	"time"
)

// Role names the set of actions that a token allows in all the systems that it covers.
type Role string

// The roles. The table permissions lists the actions of each.
const (
	RoleViewer   Role = "viewer"
	RoleOperator Role = "operator"
	RoleAuditor  Role = "auditor"
	RoleAdmin    Role = "admin"
	RoleService  Role = "service"
	RoleBridge   Role = "bridge" // the far end of a bridge
	RoleStaff    Role = "staff"
)

// Action is a kind of operation that a role allows or forbids.
type Action string

// The actions.
const (
	ActionRead       Action = "read"       // join rooms, read the current state
	ActionCommand    Action = "command"    // assign, start, stop, switch, equipment
	ActionHistory    Action = "history"    // history, as-of state, export, verify
	ActionPublish    Action = "publish"    // device updates
	ActionAdminister Action = "administer" // sockets, connections, device keys
	ActionMonitor    Action = "monitor"    // the admin dashboard
	ActionBridge     Action = "bridge"     // import events of another deployment, under any actor's name
)

// permissions is the table of the roles and their actions, in the order of the docs.
var permissions = []struct {
	role    Role
	actions []Action
}{
	{RoleViewer, []Action{ActionRead}},
	{RoleOperator, []Action{ActionRead, ActionCommand}},
	{RoleAuditor, []Action{ActionRead, ActionHistory}},
	{RoleAdmin, []Action{ActionRead, ActionCommand, ActionHistory, ActionAdminister}},
	{RoleService, []Action{ActionRead, ActionCommand, ActionPublish}},
	{RoleBridge, []Action{ActionRead, ActionBridge}},
	{RoleStaff, []Action{ActionRead, ActionCommand, ActionHistory, ActionPublish, ActionAdminister, ActionMonitor, ActionBridge}},
}

// Roles returns all roles, for help texts and checks.
func Roles() []Role {
	roles := make([]Role, len(permissions))
	for i := range permissions {
		roles[i] = permissions[i].role
	}
	return roles
}

// Valid reports whether r is a known role.
func (r Role) Valid() bool { return slices.Contains(Roles(), r) }

// allows reports whether the role allows the action. An unknown role allows nothing.
func (r Role) allows(action Action) bool {
	for i := range permissions {
		if permissions[i].role == r {
			return slices.Contains(permissions[i].actions, action)
		}
	}
	return false
}

// Actor is the authenticated sender of a request. A face authenticates it once, and every call carries it.
type Actor struct {
	Subject    string     // the token's sub; becomes the actor of events
	Role       Role       // the allowed actions
	Systems    []SystemID // the systems that the token covers; ignored if AllSystems is set
	AllSystems bool       // the token covers every system ("*")
	ExpiresAt  time.Time  // end of the token's validity
}

// Sees reports whether the actor's token covers the system. Only staff sees the reserved [PlatformSystem], and staff
// sees every system.
func (a Actor) Sees(system SystemID) bool {
	if system == PlatformSystem {
		return a.Role == RoleStaff
	}
	return a.AllSystems || a.Role == RoleStaff || slices.Contains(a.Systems, system)
}

// Authorize returns nil if the actor may perform the action in the system, and an [Error] with [CodeForbidden]
// otherwise. The error is the same for another tenant's system and for one that does not exist.
func (a Actor) Authorize(action Action, system SystemID) error {
	if !a.Sees(system) {
		return Fail(KindForbidden, CodeForbidden, "this token does not cover system "+quote(string(system)))
	}
	return a.AuthorizeAnywhere(action)
}

// AuthorizeAnywhere checks only the role. It is for actions that belong to no system, and for lists that the caller
// narrows to the actor's systems afterwards. It returns an [Error] with [CodeForbidden] as [Actor.Authorize] does.
func (a Actor) AuthorizeAnywhere(action Action) error {
	if !a.Role.allows(action) {
		return Fail(KindForbidden, CodeForbidden, "role "+quote(string(a.Role))+" may not "+string(action))
	}
	return nil
}

// QuotaSystem returns the system whose quota pays for the actor's use of resources. It is the named system if the
// actor's token covers it. Otherwise it is the first system of the token or, for a token that covers every system,
// [PlatformSystem]. Hence nobody can use up the quota of a neighbour.
func (a Actor) QuotaSystem(named SystemID) SystemID {
	switch {
	case named != "" && a.Sees(named):
		return named
	case a.AllSystems || len(a.Systems) == 0:
		return PlatformSystem
	default:
		return a.Systems[0]
	}
}
