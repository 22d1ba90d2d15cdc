package rest

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/admission"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/shelly/credential"
)

// The codes that only this face can see.
const (
	CodeInvalidRequest       domain.Code = "invalid-request"
	CodeNotFound             domain.Code = "not-found"
	CodeMethodNotAllowed     domain.Code = "method-not-allowed"
	CodeUnsupportedMediaType domain.Code = "unsupported-media-type"
	CodeBodyTooLarge         domain.Code = "body-too-large"
	CodeBodyTimeout          domain.Code = "body-timeout"
	CodeProjectionBehind     domain.Code = "projection-behind"
	CodeUnknownSocket        domain.Code = "unknown-socket"
	CodeOriginNotAllowed     domain.Code = "origin-not-allowed"
)

// codes says what every code of this face means. It is also part of the OpenAPI
// document, so that it is the one place to look.
var codes = []struct {
	Code    domain.Code
	Status  int
	Meaning string
}{
	{CodeInvalidRequest, 400, "The request is not what the operation takes: malformed JSON, a missing or ill-formed parameter, a bad header."},
	{domain.CodeInvalidSystemID, 400, "A systemId is not 1 to 64 characters of `A-Za-z0-9._-`."},
	{domain.CodeInvalidDeviceID, 400, "A deviceId is not 1 to 128 characters of `A-Za-z0-9._:-`."},
	{domain.CodeInvalidEquipmentID, 400, "An equipmentId is not 1 to 64 characters of `A-Za-z0-9._-`."},
	{domain.CodeInvalidConnectionID, 400, "A connectionId is not 1 to 64 characters of `A-Za-z0-9._-`."},
	{domain.CodeInvalidPosition, 400, "A position does not look like `1795461046705-0`."},
	{domain.CodeInvalidFilter, 400, "A filter names too many types or devices, or a type that is empty, too long or not printable."},
	{domain.CodeInvalidUpdate, 400, "A device update cannot be read; `index` says which item of the batch. Nothing was appended."},
	{domain.CodeInvalidDeployment, 400, "The source of a bridge's events is not a deployment's id, or is this deployment itself."},
	{domain.CodeInvalidCommand, 400, "The content of a command is out of bounds."},
	{auth.CodeTokenMissing, 401, "No token was sent."},
	{auth.CodeTokenInvalid, 401, "The token is not one that is accepted here, or was sent in the URL."},
	{auth.CodeTokenExpired, 401, "The token has expired."},
	{auth.CodeTicketInvalid, 401, "The ticket is unknown, was used before or is too old."},
	{domain.CodeForbidden, 403, "The token is not for this system, or its role may not do this."},
	{domain.CodeBanned, 403, "The client is banned from event streams: Retry-After and `retryAfterMs` say when the ban ends. " +
		"Other requests are not banned."},
	{CodeOriginNotAllowed, 403, "A page of another origin calls, and the server is not told to allow it."},
	{CodeNotFound, 404, "There is nothing at this path."},
	{domain.CodeUnknownDevice, 404, "The system has no such device. A device exists from its first update."},
	{domain.CodeUnknownEquipment, 404, "The system has no such equipment, or it is retired."},
	{domain.CodeUnknownConnection, 404, "The system has no such connection."},
	{domain.CodeNotAssigned, 404, "The device is not assigned to any equipment."},
	{CodeUnknownSocket, 404, "No live socket has this id, or it is not in a system of the token."},
	{CodeMethodNotAllowed, 405, "The path exists and does not take this method; see the Allow header."},
	{CodeBodyTimeout, 408, "The body came too slowly."},
	{domain.CodeEquipmentOccupied, 409, "Another plug feeds the equipment: `deviceId` says which. Repeat with `?move=true` to take it over."},
	{domain.CodeEquipmentExists, 409, "There is equipment of this id already; the ids of retired equipment are not used again."},
	{domain.CodeConnectionExists, 409, "The system already has a connection with this id."},
	{domain.CodeAmbiguousConnection, 409, "Several systems have a connection with this id: repeat with ?systemId=."},
	{domain.CodeBridgeBehind, 409, "Events between the source's cursor and the batch were not taken, and would be lost: send on from `cursor`."},
	{domain.CodeTooManySources, 409, "Events of as many other deployments as may be were taken into this system already."},
	{domain.CodeTooManyDevices, 409, "The system has as many devices as it may have, and the batch has another: `index` says which item it is, " +
		"and `deviceId` which device. Nothing was appended."},
	{domain.CodeStale, 412, "If-Match does not hold: it has changed since. `position` says where it stands now."},
	{domain.CodeBatchTooLarge, 413, "A batch holds more than 1,000 updates."},
	{CodeBodyTooLarge, 413, "The body is larger than the operation takes."},
	{CodeUnsupportedMediaType, 415, "The body must be application/json, and without a Content-Encoding."},
	{domain.CodeKeyReused, 422, "The Idempotency-Key was used for another request within 24 hours."},
	{limit.CodeRateLimited, 429, "Too many requests or updates for this system; Retry-After says when to come back."},
	{domain.CodeTooManyKeys, 429, "The system has used 1,000,000 values of Idempotency-Key within 24 hours, and nothing was appended. " +
		"No key is forgotten early: send more in one request, or send without a key."},
	{admission.CodeBusy, 429, "The system has too many reads in progress, or too many answers that its clients have not read yet. " +
		"Retry-After says when to try again."},
	{domain.CodeInternal, 500, "A fault of ours. The server's log has it under the `requestId`."},
	{domain.CodeUnavailable, 503, "A part is down and nothing was done; repeat."},
	{domain.CodeContention, 503, "Too many commands on the same thing at once; repeat."},
	{credential.CodeNoSecretKey, 503, "Credentials of Shelly Cloud accounts cannot be kept: the server has no `PLUGCAST_SECRET_KEY`."},
	{CodeProjectionBehind, 503, "The read model did not reach `after-position` in time; repeat."},
	{domain.CodeUnknownOutcome, 504, "It may or may not have been done. Repeat with the same Idempotency-Key."},
}

// codeTable is codes in Markdown.
func codeTable() string {
	var b strings.Builder
	b.WriteString("| status | code | meaning |\n|---|---|---|\n")
	for _, c := range codes {
		fmt.Fprintf(&b, "| %d | `%s` | %s |\n", c.Status, c.Code, c.Meaning)
	}
	return b.String()
}

// statusOf is the status of a code in the table or, for a code that the table
// does not have, of the error's kind.
func statusOf(e *domain.Error) int {
	for _, c := range codes {
		if c.Code == e.Code {
			return c.Status
		}
	}
	switch e.Kind {
	case domain.KindInvalid:
		return http.StatusBadRequest
	case domain.KindUnauthenticated:
		return http.StatusUnauthorized
	case domain.KindForbidden:
		return http.StatusForbidden
	case domain.KindNotFound:
		return http.StatusNotFound
	case domain.KindConflict:
		return http.StatusConflict
	case domain.KindPrecondition:
		return http.StatusPreconditionFailed
	case domain.KindTooLarge:
		return http.StatusRequestEntityTooLarge
	case domain.KindLimited:
		return http.StatusTooManyRequests
	case domain.KindUnavailable:
		return http.StatusServiceUnavailable
	case domain.KindUnknownOutcome:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}
