package intake_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

// deleter deletes the hash of the first HSETNX behind it, as the repair of a lost stream does.
type deleter struct{ client redis.UniversalClient }

func (deleter) DialHook(next redis.DialHook) redis.DialHook { return next }
func (deleter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (d deleter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if cmd.Name() == "hsetnx" && err == nil {
			err = d.client.Del(ctx, cmd.Args()[1].(string)).Err()
		}
		return err
	}
}

// A cursor that was restored after a loss of Redis is known, also if the repair of the stream
// deletes it at the same moment. A bridge that finds no cursor starts from the beginning.
func TestCursorDuringARepair(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if err := b.SkipTo(t.Context(), system, "a", domain.Position{Ms: 20}); err != nil {
		t.Fatal(err)
	}
	b.wipe()
	b.log.Client().AddHook(deleter{b.log.Client()})
	if at, known, err := b.Cursor(t.Context(), system, "a"); err != nil || !known || at.Ms != 20 {
		t.Errorf("the cursor is %s, %v, %v", at, known, err)
	}
}
