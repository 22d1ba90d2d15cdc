package domain

// ConnectionSecret is the credential of one connection. It is not part of a read model, because no event
// contains it: a rebuild leaves it alone. It may exist before its connection does, to reserve
// the id, and after the connection was deleted; then it admits no socket. It is defined here
// because the store of projections and the vault of Shelly credentials exchange it and do not
// import each other.
type ConnectionSecret struct {
	ConnectionID ConnectionID
	System       SystemID
	Kind         ConnectionKind
	KeyHash      []byte // SHA-256 of the key with which devices dial in, or nil
	KeyID        string // id of the key that encrypted Sealed, or ""
	Sealed       []byte // encrypted credential of a cloud account, or nil

	Revision string // changes with each write; set by the database
}
