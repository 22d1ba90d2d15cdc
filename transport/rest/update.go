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
	Idempotent
	TicketParam
	StreamedBody
}

// StreamedBody is part of inputs whose body the handler reads itself, item by item.
type StreamedBody struct{ body io.Reader }

// Resolve implements [huma.Resolver].
func (in *StreamedBody) Resolve(ctx huma.Context) []error {
	if err := ctx.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return []error{err}
	}
	in.body = ctx.BodyReader()
	return nil
}

type publishOutput struct {
	Replay
	Body struct {
		Accepted  int                                      `json:"accepted" doc:"The number of updates that were appended"`
		Positions map[domain.SystemID]domain.PositionRange `json:"positions" doc:"The positions of the first and the last update of each system"`
	}
}

func (a *API) registerUpdates() {
	register(a, operation{
		id: "publishUpdates", method: http.MethodPost, path: publishPath, tag: "Device updates",
		summary: "Append a batch of device updates",
		detail: "The body is a JSON array, or one object per line (NDJSON), of at most 1,000 updates and 8 MiB. The server appends each update " +
			"as given, in order. If an update is invalid, or its device exceeds the system's limit, the server rejects the whole batch with " +
			"the update's index, before it appends anything. An empty array is accepted.",
		errors: []int{408, 409, 413, 415, 422, 504},
	}, a.publish)
	describeBatch[domain.SystemUpdate](a, publishPath, domain.MaxUpdatesPerBatch)
}

// describeBatch documents that the body of a POST is a batch of at most maxItems. The
// input type does not declare the body, because huma would then read and decode it.
func describeBatch[T any](a *API, path string, maxItems int) {
	api := a.huma.OpenAPI()
	one := api.Components.Schemas.Schema(reflect.TypeFor[T](), true, "")
	api.Paths[path].Post.RequestBody = &huma.RequestBody{
		Required: true,
		Content: map[string]*huma.MediaType{
			"application/json":     {Schema: &huma.Schema{Type: huma.TypeArray, Items: one, MaxItems: &maxItems}},
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
	var digest hash.Hash
	if in.IdempotencyKey != "" {
		digest = sha256.New()
	}
	updates, err := readBatch(in.body, digest)
	if err != nil {
		return nil, unreadable(ctx, err)
	}
	if digest != nil {
		r.Fingerprint = hex.EncodeToString(digest.Sum(nil)[:16])
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

// chargeUpdates charges each system's rate limit for its updates. If the actor may not
// publish to one of the systems, chargeUpdates charges none.
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
		return a.rateLimited(ctx, domain.FlowDeviceUpdates, refused, wait)
	}
	return nil
}

// unreadable converts an error of reading a body to one for the caller.
func unreadable(ctx context.Context, err error) error {
	if p := bodyProblem(ctx, err); p != nil {
		return p
	}
	var own *domain.Error
	if errors.As(err, &own) {
		return err
	}
	return domain.Invalid(CodeInvalidRequest, "the body ended too early").WithCause(err)
}
