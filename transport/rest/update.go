package rest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/plugcast/plugcast/domain"
)

const publishPath = "/api/v1/device-updates"

type publishInput struct {
	Keyed
	WithTicket
	Unread
}

// Unread leaves the body unread: the handler reads it item by item.
type Unread struct{ body io.Reader }

// Resolve implements [huma.Resolver].
func (in *Unread) Resolve(ctx huma.Context) []error {
	if err := ctx.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return []error{err}
	}
	in.body = ctx.BodyReader()
	return nil
}

type publishOutput struct {
	Replay
	Body struct {
		Accepted  int                                      `json:"accepted" doc:"How many updates were appended"`
		Positions map[domain.SystemID]domain.PositionRange `json:"positions" doc:"Of the first and the last update of each system"`
	}
}

func (a *API) registerUpdates() {
	register(a, operation{
		id: "publishUpdates", method: http.MethodPost, path: publishPath, tag: "Device updates",
		summary: "Append a batch of device updates",
		detail: "A JSON array, or one object per line (NDJSON), of at most 1,000 updates and 8 MiB. Each is appended as given, " +
			"in order. One bad update, or one of a device more than the system may have, rejects the whole batch, " +
			"with its index, before anything is appended. " +
			"An empty array is accepted.",
		errors: []int{408, 409, 413, 415, 422, 504},
	}, a.publish)
	describeBatch[domain.SystemUpdate](a, publishPath, domain.MaxUpdatesPerBatch)
}

// describeBatch says that the body of a POST is a batch of at most so many. It is
// described only here: huma would otherwise read and decode it.
func describeBatch[T any](a *API, path string, most int) {
	api := a.huma.OpenAPI()
	one := api.Components.Schemas.Schema(reflect.TypeFor[T](), true, "")
	api.Paths[path].Post.RequestBody = &huma.RequestBody{
		Required: true,
		Content: map[string]*huma.MediaType{
			"application/json":     {Schema: &huma.Schema{Type: huma.TypeArray, Items: one, MaxItems: &most}},
			"application/x-ndjson": {Schema: one},
		},
	}
}

func (a *API) publish(ctx context.Context, in *publishInput) (*publishOutput, error) {
	actor := actorOf(ctx)
	if err := actor.AuthorizeAnywhere(domain.ActionPublish); err != nil {
		return nil, err // before the body is read
	}
	r, err := in.request(ctx)
	if err != nil {
		return nil, err
	}
	var identity hash.Hash
	if in.IdempotencyKey != "" {
		identity = sha256.New()
	}
	updates, err := readBatch(in.body, identity)
	if err != nil {
		return nil, unreadable(ctx, err)
	}
	if identity != nil {
		r.Fingerprint = hex.EncodeToString(identity.Sum(nil)[:16])
	}
	if err := a.chargeUpdates(ctx, actor, updates); err != nil {
		return nil, err
	}
	published, err := a.service.Publish(ctx, updates, r)
	if err != nil {
		return nil, err
	}
	out := &publishOutput{Replay: replayOf(published.Replayed)}
	out.Body.Accepted, out.Body.Positions = published.Accepted, published.Positions
	return out, nil
}

// chargeUpdates takes the updates from what each system may publish. Systems
// that the actor may not publish to are left to the refusal that follows.
func (a *API) chargeUpdates(ctx context.Context, actor domain.Actor, updates []domain.SystemUpdate) error {
	if a.limiter == nil {
		return nil
	}
	counts := map[domain.SystemID]int{}
	for i := range updates {
		if err := actor.Authorize(domain.ActionPublish, updates[i].SystemID); err != nil {
			return domain.AtIndex(err, i)
		}
		counts[updates[i].SystemID]++
	}
	if refused, wait := a.limiter.AllowAll(ctx, domain.FlowDeviceUpdates, counts); refused != "" {
		return a.limited(ctx, domain.FlowDeviceUpdates, refused, wait)
	}
	return nil
}

// unreadable says why a body could not be read.
func unreadable(ctx context.Context, err error) error {
	if p := bodyProblem(ctx, err); p != nil {
		return p
	}
	var own *domain.Error
	if errors.As(err, &own) {
		return err
	}
	return domain.Invalid(CodeInvalidRequest, "the body broke off").WithCause(err)
}
