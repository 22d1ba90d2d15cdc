package rest

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/admission"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/shelly/credential"
)

// The codes that only this package uses.
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

// codes are all codes of the API with their meanings. The OpenAPI document contains
// this table.
var codes = []struct {
	Code    domain.Code
	Status  int
	Meaning string
}{
	{CodeInvalidRequest, 400, "The request is invalid: malformed JSON, a missing or malformed parameter, or an invalid header."},
	{domain.CodeInvalidSystemID, 400, "A systemId is not 1 to 64 characters of `A-Za-z0-9._-`."},
	{domain.CodeInvalidDeviceID, 400, "A deviceId is not 1 to 128 characters of `A-Za-z0-9._:-`."},
	{domain.CodeInvalidEquipmentID, 400, "An equipmentId is not 1 to 64 characters of `A-Za-z0-9._-`."},
	{domain.CodeInvalidConnectionID, 400, "A connectionId is not 1 to 64 characters of `A-Za-z0-9._-`."},
	{domain.CodeInvalidPosition, 400, "A position does not look like `1795461046705-0`."},
	{domain.CodeInvalidFilter, 400, "A filter names too many types or devices, or a type that is empty, too long or not printable."},
	{domain.CodeInvalidUpdate, 400, "A device update is invalid; `index` is its place in the batch. Nothing was appended."},
	{domain.CodeInvalidDeployment, 400, "The source of a bridge's events is not a deployment's id, or is this deployment itself."},
	{domain.CodeInvalidCommand, 400, "A field of a command is out of bounds."},
	{auth.CodeTokenMissing, 401, "The request has no token."},
	{auth.CodeTokenInvalid, 401, "The server does not accept the token, or the token was sent in the URL."},
	{auth.CodeTokenExpired, 401, "The token has expired."},
	{auth.CodeTicketInvalid, 401, "The ticket is unknown, used or expired."},
	{domain.CodeForbidden, 403, "The token is not for this system, or its role does not allow this."},
	{domain.CodeBanned, 403, "The client is banned from event streams: Retry-After and `retryAfterMs` say when the ban ends. " +
		"Other requests are not banned."},
	{CodeOriginNotAllowed, 403, "The server does not allow requests by pages of this origin; see `PLUGCAST_ALLOWED_ORIGINS`."},
	{CodeNotFound, 404, "No such path."},
	{domain.CodeUnknownDevice, 404, "The system has no such device. A device exists from its first update."},
	{domain.CodeUnknownEquipment, 404, "The system has no such equipment, or the equipment is retired."},
	{domain.CodeUnknownConnection, 404, "The system has no such connection."},
	{domain.CodeNotAssigned, 404, "The device is not assigned to any equipment."},
	{CodeUnknownSocket, 404, "No live socket has this id, or the socket is in no system of the token."},
	{CodeMethodNotAllowed, 405, "The path does not support this method; see the Allow header."},
	{CodeBodyTimeout, 408, "The client sent the body too slowly."},
	{domain.CodeEquipmentOccupied, 409, "Another plug, `deviceId`, feeds the equipment. `?move=true` takes the equipment from it."},
	{domain.CodeEquipmentExists, 409, "The system has, or had, equipment with this id. Ids of retired equipment cannot be used again."},
	{domain.CodeConnectionExists, 409, "The system already has a connection with this id."},
	{domain.CodeAmbiguousConnection, 409, "Several systems have a connection with this id. Repeat with `?systemId=`."},
	{domain.CodeBridgeBehind, 409, "The server has not imported all of the source's events before the batch. Continue from `cursor`."},
	{domain.CodeTooManySources, 409, "The system has imported events of its maximum number of other deployments."},
	{domain.CodeTooManyDevices, 409, "The system has its maximum number of devices, and the batch has another one: `deviceId`, at `index`. " +
		"Nothing was appended."},
	{domain.CodeStale, 412, "The ETag in If-Match is outdated. `position` is the present one."},
	{domain.CodeBatchTooLarge, 413, "The batch has more than 1,000 items."},
	{CodeBodyTooLarge, 413, "The body is larger than the operation allows."},
	{CodeUnsupportedMediaType, 415, "The body must be application/json without a Content-Encoding."},
	{domain.CodeKeyReused, 422, "The Idempotency-Key was used for another request within 24 hours."},
	{limit.CodeRateLimited, 429, "Too many requests or updates for this system. Retry-After says when to try again."},
	{domain.CodeTooManyKeys, 429, "The system has used 1,000,000 values of Idempotency-Key within 24 hours. Nothing was appended. " +
		"The server forgets no key early: put more into one request, or send no key."},
	{admission.CodeBusy, 429, "The system has too many reads in progress, or too many answers that its clients have not read yet. " +
		"Retry-After says when to try again."},
	{domain.CodeInternal, 500, "The server failed. Its log has the cause under the `requestId`."},
	{domain.CodeUnavailable, 503, "A part of the server is down. Nothing was done; repeat the request."},
	{domain.CodeContention, 503, "Too many concurrent commands for the same object. Repeat the request."},
	{credential.CodeNoSecretKey, 503, "The server has no `PLUGCAST_SECRET_KEY`, so it cannot keep credentials of Shelly Cloud accounts."},
	{CodeProjectionBehind, 503, "The read model did not reach `after-position` in time. Repeat the request."},
	{domain.CodeUnknownOutcome, 504, "The command may or may not have been done. Repeat it with the same Idempotency-Key."},
}

// codeTable returns codes as a table in Markdown.
func codeTable() string {
	var b strings.Builder
	b.WriteString("| status | code | meaning |\n|---|---|---|\n")
	for _, c := range codes {
		fmt.Fprintf(&b, "| %d | `%s` | %s |\n", c.Status, c.Code, c.Meaning)
	}
	return b.String()
}

// kindStatus are the statuses of errors whose code is not in codes.
var kindStatus = map[domain.ErrorKind]int{
	domain.KindInvalid:         http.StatusBadRequest,
	domain.KindUnauthenticated: http.StatusUnauthorized,
	domain.KindForbidden:       http.StatusForbidden,
	domain.KindNotFound:        http.StatusNotFound,
	domain.KindConflict:        http.StatusConflict,
	domain.KindPrecondition:    http.StatusPreconditionFailed,
	domain.KindTooLarge:        http.StatusRequestEntityTooLarge,
	domain.KindLimited:         http.StatusTooManyRequests,
	domain.KindUnavailable:     http.StatusServiceUnavailable,
	domain.KindUnknownOutcome:  http.StatusGatewayTimeout,
}

// statusOf returns the status of the error's code, or of its kind if the code is not
// in codes.
func statusOf(e *domain.Error) int {
	for _, c := range codes {
		if c.Code == e.Code {
			return c.Status
		}
	}
	return cmp.Or(kindStatus[e.Kind], http.StatusInternalServerError)
}
