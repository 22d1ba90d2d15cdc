package domain

import (
	"slices"
	"time"
)

// Role is what a token allows, across all the systems that it names.
type Role string

// The roles, from PROTOCOL: who may do what.
const (
	RoleViewer   Role = "viewer"
	RoleOperator Role = "operator"
	RoleAuditor  Role = "auditor"
	RoleAdmin    Role = "admin"
	RoleService  Role = "service"
	RoleBridge   Role = "bridge" // the far end of a bridge
	RoleStaff    Role = "staff"
)

// Action is something that a role may allow.
type Action string

// The actions.
const (
	ActionRead       Action = "read"       // join rooms, read the current state
	ActionCommand    Action = "command"    // assign, start, stop, switch, equipment
	ActionHistory    Action = "history"    // history, as-of state, export, verify
	ActionPublish    Action = "publish"    // device updates
	ActionAdminister Action = "administer" // sockets, connections, device keys
	ActionMonitor    Action = "monitor"    // the admin dashboard
	ActionBridge     Action = "bridge"     // bring in events of another deployment, in anybody's name
)

var permissions = map[Role][]Action{
	RoleViewer:   {ActionRead},
	RoleOperator: {ActionRead, ActionCommand},
	RoleAuditor:  {ActionRead, ActionHistory},
	RoleAdmin:    {ActionRead, ActionCommand, ActionHistory, ActionAdminister},
	RoleService:  {ActionRead, ActionCommand, ActionPublish},
	RoleBridge:   {ActionRead, ActionBridge},
	RoleStaff:    {ActionRead, ActionCommand, ActionHistory, ActionPublish, ActionAdminister, ActionMonitor, ActionBridge},
}

// Valid reports whether r is one of the roles above.
func (r Role) Valid() bool { return permissions[r] != nil }

// Roles lists the roles, for help texts and checks.
func Roles() []Role {
	return []Role{RoleViewer, RoleOperator, RoleAuditor, RoleAdmin, RoleService, RoleBridge, RoleStaff}
}

// Actor is who asks, authorised once at the edge and carried in every call.
type Actor struct {
	Subject    string     // the token's sub; written to events as their actor
	Role       Role       // what it may do
	Systems    []SystemID // where; ignored when AllSystems
	AllSystems bool       // the token said "*"
	ExpiresAt  time.Time  // when the authority ends
}

// Sees reports whether the actor's token covers the system. The reserved
// [PlatformSystem] is for staff alone.
func (a Actor) Sees(system SystemID) bool {
	if system == PlatformSystem {
		return a.Role == RoleStaff
	}
	return a.AllSystems || a.Role == RoleStaff || slices.Contains(a.Systems, system)
}

// Authorize returns nil when the actor may do the action in the system, and an
// [Error] with [CodeForbidden] otherwise. It says the same of a system that is
// not the actor's as of one that does not exist.
func (a Actor) Authorize(action Action, system SystemID) error {
	if !a.Sees(system) {
		return Fail(KindForbidden, CodeForbidden, "this token is not for system "+quote(string(system)))
	}
	return a.AuthorizeAnywhere(action)
}

// AuthorizeAnywhere checks the role alone, for actions that belong to no system
// and for narrowing lists afterwards.
func (a Actor) AuthorizeAnywhere(action Action) error {
	if !slices.Contains(permissions[a.Role], action) {
		return Fail(KindForbidden, CodeForbidden, "role "+quote(string(a.Role))+" may not "+string(action))
	}
	return nil
}
