package rest

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/admission"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/shelly/credential"
)

const (
	assignD1 = sol + "/devices/d1/assignment"
	e1       = `{"equipmentId":"e1"}`
	e2       = `{"equipmentId":"e2"}`
	service  = domain.RoleService
	operator = domain.RoleOperator
)

// provocations provoke each code in clinica-sol, which has the devices d1 and d2, the
// equipment e1, which d2 feeds, and the equipment e2.
var provocations = map[domain.Code]func(*bundle) reply{
	CodeInvalidRequest:             func(b *bundle) reply { return b.send(operator, "PUT", assignD1, `{"equipmentId":`) },
	domain.CodeInvalidSystemID:     func(b *bundle) reply { return b.send(operator, "GET", "/api/v1/systems/a%20b/devices") },
	domain.CodeInvalidDeviceID:     func(b *bundle) reply { return b.send(operator, "GET", sol+"/devices/a%20b") },
	domain.CodeInvalidEquipmentID:  func(b *bundle) reply { return b.send(operator, "PUT", assignD1, `{"equipmentId":"a b"}`) },
	domain.CodeInvalidConnectionID: func(b *bundle) reply { return b.send(operator, "POST", "/api/websocket/a%20b/stop") },
	domain.CodeInvalidPosition:     func(b *bundle) reply { return b.send(operator, "GET", sol+"/devices?after-position=x") },
	domain.CodeInvalidDeployment:   func(b *bundle) reply { return b.send(domain.RoleBridge, "GET", sol+"/bridge/cursor?source=a%20b") },
	domain.CodeTooManySources: func(b *bundle) reply {
		return b.send(domain.RoleBridge, "PUT", sol+"/bridge/cursor?source="+oneTooMany, `{"position":"1-0"}`)
	},
	domain.CodeBridgeBehind: func(b *bundle) reply {
		return b.send(domain.RoleBridge, "POST", sol+"/bridge/events?source=far&after=5-0&through=6-0", "[]")
	},
	domain.CodeInvalidFilter:  func(b *bundle) reply { return b.send(domain.RoleAuditor, "GET", sol+"/events?type=a,,b") },
	domain.CodeBanned:         nil, // the event stream's: TestRefuseBanned
	domain.CodeInvalidUpdate:  func(b *bundle) reply { return b.send(service, "POST", publishPath, `[{"relay_on":true}]`) },
	domain.CodeInvalidCommand: func(b *bundle) reply { return b.send(operator, "POST", sol+"/equipment", `{"name":""}`) },
	auth.CodeTokenMissing:     func(b *bundle) reply { return b.send("", "GET", sol+"/devices") },
	auth.CodeTokenInvalid:     func(b *bundle) reply { return b.send("", "GET", sol+"/devices", "Authorization: Bearer x") },
	auth.CodeTicketInvalid:    func(b *bundle) reply { return b.send("", "GET", sol+"/devices?ticket=x") },
	auth.CodeTokenExpired: func(b *bundle) reply {
		b.tickets["old"] = domain.Actor{Subject: "x", ExpiresAt: time.Now().Add(-time.Second)}
		return b.send("", "GET", sol+"/devices?ticket=old")
	},
	domain.CodeForbidden: func(b *bundle) reply { return b.send(operator, "GET", "/api/v1/systems/centro-luna/devices") },
	CodeOriginNotAllowed: func(b *bundle) reply {
		return b.send(operator, "GET", sol+"/devices", "Origin: https://evil.example.com")
	},
	CodeNotFound:                 func(b *bundle) reply { return b.send(operator, "GET", "/api/v1/nothing") },
	domain.CodeUnknownDevice:     func(b *bundle) reply { return b.send(operator, "PUT", sol+"/devices/nope/assignment", e1) },
	domain.CodeUnknownEquipment:  func(b *bundle) reply { return b.send(operator, "PUT", assignD1, `{"equipmentId":"nope"}`) },
	domain.CodeUnknownConnection: func(b *bundle) reply { return b.send(operator, "POST", "/api/websocket/nope/stop") },
	domain.CodeNotAssigned:       func(b *bundle) reply { return b.send(operator, "DELETE", assignD1) },
	CodeUnknownSocket:            func(b *bundle) reply { return b.send(domain.RoleAdmin, "DELETE", "/api/v1/sockets/nope") },
	CodeMethodNotAllowed:         func(b *bundle) reply { return b.send(operator, "PATCH", sol+"/devices") },
	CodeBodyTimeout:              nil, // needs a test's clock: TestSlowBody
	domain.CodeEquipmentOccupied: func(b *bundle) reply {
		return b.send(operator, "PUT", assignD1, e1)
	},
	domain.CodeEquipmentExists: func(b *bundle) reply {
		return b.send(operator, "POST", sol+"/equipment", `{"equipmentId":"e1","name":"x"}`)
	},
	domain.CodeStale: func(b *bundle) reply { return b.send(operator, "PUT", assignD1, e1, `If-Match: "1-0"`) },
	domain.CodeBatchTooLarge: func(b *bundle) reply {
		one := `{"systemId":"clinica-sol","deviceId":"d1"},`
		return b.send(service, "POST", publishPath, "["+strings.Repeat(one, domain.MaxUpdatesPerBatch)+`{}]`)
	},
	CodeBodyTooLarge:         func(b *bundle) reply { return b.exchange("POST", publishPath, b.header(service), spaces(10<<20)) },
	CodeUnsupportedMediaType: func(b *bundle) reply { return b.send(operator, "PUT", assignD1, e1, "Content-Type: text/plain") },
	domain.CodeKeyReused:     func(b *bundle) reply { return b.send(service, "POST", publishPath, oneItem, "Idempotency-Key: used") },
	domain.CodeTooManyKeys: func(b *bundle) reply {
		b.fail = domain.Fail(domain.KindLimited, domain.CodeTooManyKeys, "too many keys").With("retryAfterMs", int64(90_000))
		answer := b.send(operator, "PUT", assignD1, e2, "Idempotency-Key: one-more")
		if after := answer.header.Get("Retry-After"); after != "90" {
			b.t.Errorf("Retry-After is %q", after)
		}
		return answer
	},
	limit.CodeRateLimited:  func(b *bundle) reply { return b.send(operator, "GET", sol+"/connections") },
	admission.CodeBusy:     nil, // TestBusy
	domain.CodeInternal:    func(b *bundle) reply { b.broken = errDown; return b.send(operator, "GET", sol+"/devices") },
	domain.CodeUnavailable: func(b *bundle) reply { b.broken = errDown; return b.send(domain.RoleAdmin, "GET", "/api/v1/sockets") },
	domain.CodeContention:  func(b *bundle) reply { b.fail = &domain.ConflictError{}; return b.send(operator, "PUT", assignD1, e2) },
	CodeProjectionBehind:   nil, // needs a test's clock: TestProjectionBehind
	domain.CodeConnectionExists: func(b *bundle) reply {
		return b.send(domain.RoleAdmin, "POST", sol+"/connections", `{"connectionId":"made","kind":"shelly-outbound"}`)
	},
	domain.CodeAmbiguousConnection: nil, // TestSystemOfConnection of package projections, and TestSameNames of the program
	credential.CodeNoSecretKey: func(b *bundle) reply {
		b.noKey = true
		return b.send(domain.RoleAdmin, "POST", sol+"/connections", `{"kind":"shelly-cloud","authCode":"good"}`)
	},
	domain.CodeTooManyDevices: func(b *bundle) reply { // TestASystemHasSoManyDevices of the program tests the quota
		b.fail = domain.Fail(domain.KindConflict, domain.CodeTooManyDevices, "the system has 2 devices already, and may have 2")
		return b.send(service, "POST", publishPath, oneItem)
	},
	domain.CodeUnknownOutcome: func(b *bundle) reply {
		b.fail = domain.Fail(domain.KindUnknownOutcome, domain.CodeUnknownOutcome, "the log broke off")
		return b.send(operator, "PUT", assignD1, e2)
	},
}

// A request can get every code of the table, with the status in the table, and none of
// these requests appends anything.
func TestEveryCode(t *testing.T) {
	t.Parallel()
	for _, row := range codes {
		t.Run(string(row.Code), func(t *testing.T) {
			t.Parallel()
			provoke, listed := provocations[row.Code]
			if !listed {
				t.Fatal("the table has it, this test has not")
			}
			if provoke == nil {
				return // the comment beside the code says which test covers it, or why none can
			}
			b := setup(t)
			b.seed()
			b.want(b.send(operator, "PUT", sol+"/devices/d2/assignment", e1), 202, "")
			b.want(b.send(service, "POST", publishPath, strings.ReplaceAll(oneItem, "12.5", "1"), "Idempotency-Key: used"), 200, "")
			b.want(b.send(domain.RoleAdmin, "POST", sol+"/connections", `{"connectionId":"made","kind":"shelly-outbound"}`), 201, "")
			if row.Code == limit.CodeRateLimited {
				b.allow = func(domain.Flow, domain.SystemID, int) bool { return false }
			}
			before := b.count()
			r := provoke(b)
			b.want(r, row.Status, row.Code)
			if after := b.count(); after != before {
				t.Errorf("%d events were appended", after-before)
			}
			if r.body["title"] != http.StatusText(row.Status) || r.body["detail"] == "" ||
				r.body["type"] != "urn:plugcast:problem:"+string(row.Code) || r.body["status"] != float64(row.Status) {
				t.Errorf("%s", r.raw)
			}
			if row.Status == 401 && r.header.Get("WWW-Authenticate") != "Bearer" {
				t.Error("no WWW-Authenticate")
			}
			if (row.Status == 429 || row.Status == 503) && r.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if strings.Contains(r.raw, "10.0.0.7") {
				t.Errorf("the inside shows: %s", r.raw)
			}
		})
	}
}

// The table has every code of the domain, and gives it the status of its kind unless
// there is a reason for another one.
func TestTableIsComplete(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, c := range codes {
		if known[string(c.Code)] {
			t.Errorf("%s appears twice", c.Code)
		}
		known[string(c.Code)] = true
		if !strings.Contains(codeTable(), "| "+strconv.Itoa(c.Status)+" | `"+string(c.Code)+"` |") {
			t.Errorf("%s is not in the description", c.Code)
		}
	}
	files := []string{"../../domain/error.go", "../auth/authenticator.go", "../limit/limit.go", "../shelly/credential/new.go", "code.go"}
	for _, file := range files {
		for name, code := range declaredCodes(t, file) {
			if !known[code] {
				t.Errorf("%s: %s (%s) is not in the table", file, name, code)
			}
		}
	}
	for kind, want := range map[domain.ErrorKind]int{
		domain.KindInternal: 500, domain.KindInvalid: 400, domain.KindUnauthenticated: 401, domain.KindForbidden: 403,
		domain.KindNotFound: 404, domain.KindConflict: 409, domain.KindPrecondition: 412, domain.KindTooLarge: 413,
		domain.KindLimited: 429, domain.KindUnavailable: 503, domain.KindUnknownOutcome: 504,
	} {
		if got := statusOf(domain.Fail(kind, "a-code-of-tomorrow", "")); got != want {
			t.Errorf("kind %d has status %d", kind, got)
		}
	}
}

// declaredCodes finds the constants named Code… in a file.
func declaredCodes(t *testing.T, path string) map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, is := n.(*ast.ValueSpec)
		if !is || !strings.HasPrefix(spec.Names[0].Name, "Code") || len(spec.Values) != 1 {
			return true
		}
		if value, is := spec.Values[0].(*ast.BasicLit); is {
			text, err := strconv.Unquote(value.Value)
			if err != nil {
				t.Fatal(err)
			}
			found[spec.Names[0].Name] = text
		}
		return true
	})
	if len(found) == 0 {
		t.Fatalf("%s declares no codes", path)
	}
	return found
}

func (b *bundle) header(role domain.Role) http.Header {
	return http.Header{"Authorization": {"Bearer " + b.tokens[role]}, "Content-Type": {"application/json"}}
}

// Only the log gets the cause of an internal error.
func TestInternalErrorsStayInside(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.broken = errors.New("pq: password authentication failed for user plugcast")
	r := b.send(domain.RoleViewer, "GET", sol+"/devices", "X-Request-Id: req-42")
	b.want(r, 500, domain.CodeInternal)
	if strings.Contains(r.raw, "password") || r.body["requestId"] != "req-42" {
		t.Errorf("%s", r.raw)
	}
	if log := b.log.String(); !strings.Contains(log, "password authentication failed") || !strings.Contains(log, "req-42") {
		t.Errorf("the log lacks the cause or the request: %s", log)
	}
	if strings.Contains(b.log.String(), b.tokens[domain.RoleViewer]) {
		t.Error("the log shows the token")
	}
}
