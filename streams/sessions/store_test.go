package sessions

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/redisserver/redistest"
)

func TestMain(m *testing.M) { redistest.Main(m) }

const system domain.SystemID = "clinica-sol"

func setup(t *testing.T, limits Limits) (*Store, *redis.Client) {
	t.Helper()
	client := redistest.Connect(t, redistest.URL(t))
	return New(client, "test", limits), client
}

func refOf(subject, pid string) domain.SessionRef {
	return domain.SessionRef{System: system, Subject: subject, PID: pid}
}

func key(of domain.SystemID, part string) string { return "test:{sessions:" + string(of) + "}:" + part }

// age brings the expiry of the given sessions forward.
func age(t *testing.T, client *redis.Client, by time.Duration, limits Limits, refs ...domain.SessionRef) {
	t.Helper()
	s := New(client, "test", limits)
	script := redis.NewScript(luaStore + `
for i = 6, #ARGV do expire(ARGV[i], tonumber(redis.call('ZSCORE', expiring, ARGV[i])) - ARGV[5]) end
return 1`)
	for _, ref := range refs {
		if err := s.run(t.Context(), script, ref.System, by.Milliseconds(), id(ref)).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func left(t *testing.T, client *redis.Client, ref domain.SessionRef) time.Duration {
	t.Helper()
	at, err := client.ZScore(t.Context(), key(ref.System, "expiring"), id(ref)).Result()
	if err != nil {
		t.Fatal(err)
	}
	return time.Until(time.UnixMilli(int64(at)))
}

func TestSessions(t *testing.T) {
	t.Parallel()
	here, client := setup(t, Limits{})
	ctx, elsewhere := context.Background(), New(client, "test", Limits{})

	unknown := refOf("eva", "nobody")
	if _, ok, err := here.Claim(ctx, unknown, "h1"); ok || err != nil {
		t.Errorf("claimed a session that was never saved: %v, %v", ok, err)
	}
	var refs []domain.SessionRef
	for i := range batch + 1 { // more than one call extends
		ref := refOf("eva", fmt.Sprint("client-", i))
		refs = append(refs, ref)
		if ok, err := here.Save(ctx, ref, "h1", []byte(ref.PID)); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	age(t, client, time.Hour, Limits{}, refs[0], refs[batch])
	if err := elsewhere.Keep(ctx, append(refs, unknown)); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []domain.SessionRef{refs[0], refs[batch]} {
		if left := left(t, client, ref); left < Lifetime-time.Minute {
			t.Errorf("%s is kept for %v", ref.PID, left)
		}
		if saved, ok, err := elsewhere.Claim(ctx, ref, "h2"); string(saved) != ref.PID || !ok || err != nil {
			t.Errorf("claimed %q, %v, %v", saved, ok, err)
		}
	}
	if _, ok, _ := here.Claim(ctx, unknown, "h1"); ok {
		t.Error("keeping made a session")
	}

	if ok, err := here.Save(ctx, refs[0], "h1", []byte("late")); ok || err != nil {
		t.Errorf("the holder before saved: %v, %v", ok, err)
	}
	if ok, err := elsewhere.Save(ctx, refs[0], "h2", []byte("new")); !ok || err != nil {
		t.Errorf("the holder cannot save: %v, %v", ok, err)
	}
	if saved, _, err := here.Claim(ctx, refs[0], "h3"); string(saved) != "new" || err != nil {
		t.Errorf("%q is saved, %v", saved, err)
	}
	for _, other := range []domain.SessionRef{refOf("ana", refs[0].PID), {System: "centro-luna", Subject: "eva", PID: refs[0].PID}} {
		if _, ok, err := here.Claim(ctx, other, "h4"); ok || err != nil {
			t.Errorf("%v has the session: %v", other, err)
		}
	}
	for _, part := range []string{"saved", "expiring", "owned", "used"} {
		if left := client.TTL(ctx, key(system, part)).Val(); left <= 0 || left > Lifetime {
			t.Errorf("%s is kept for %v", part, left)
		}
	}
}

// Claiming a session extends it: it must not expire before Keep is called the next time.
func TestClaimKeeps(t *testing.T) {
	t.Parallel()
	s, client := setup(t, Limits{})
	ctx, ref := context.Background(), refOf("eva", "client")
	if _, err := s.Save(ctx, ref, "h1", []byte("saved")); err != nil {
		t.Fatal(err)
	}
	age(t, client, Lifetime-time.Minute, Limits{}, ref)
	if _, ok, err := s.Claim(ctx, ref, "h2"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if left := left(t, client, ref); left < Lifetime-time.Minute {
		t.Errorf("kept for %v", left)
	}
}

// A field that cannot be read does not turn its client away.
func TestClaimOfWhatIsNoSession(t *testing.T) {
	t.Parallel()
	s, client := setup(t, Limits{})
	ctx := context.Background()
	text, half := refOf("eva", "text"), refOf("eva", "half")
	if err := client.HSet(ctx, key(system, "saved"), id(text), "saved", id(half), "holder saved").Err(); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []domain.SessionRef{text, half} {
		if saved, ok, err := s.Claim(ctx, ref, "h2"); ok || err != nil {
			t.Errorf("%s: claimed %q, %v, %v", ref.PID, saved, ok, err)
		}
	}
}

// A session that ended stays for a reload of the page, and no longer.
func TestEnd(t *testing.T) {
	t.Parallel()
	s, client := setup(t, Limits{})
	ctx, ref := context.Background(), refOf("eva", "client")
	if _, err := s.Save(ctx, ref, "h1", []byte("saved")); err != nil {
		t.Fatal(err)
	}
	if err := s.End(ctx, ref, "another"); err != nil || left(t, client, ref) <= EndedLifetime {
		t.Errorf("ended by another holder: %v", err)
	}
	if err := s.End(ctx, ref, "h1"); err != nil || left(t, client, ref) > EndedLifetime {
		t.Errorf("not ended: %v", err)
	}
	age(t, client, EndedLifetime, Limits{}, ref)
	if _, ok, err := s.Claim(ctx, ref, "h2"); ok || err != nil {
		t.Errorf("claimed after its end: %v, %v", ok, err)
	}
	if err := s.End(ctx, refOf("eva", "nobody"), "h1"); err != nil {
		t.Error(err)
	}
}

// A viewer that connects, joins and leaves again and again fills its own share and no more. The
// sessions of other subjects stay.
func TestBounds(t *testing.T) {
	t.Parallel()
	limits := Limits{PerSubject: 256 << 10, PerSystem: 1 << 20}
	s, client := setup(t, limits)
	ctx := context.Background()
	usage := func() (total int64) {
		for _, part := range []string{"saved", "expiring", "owned", "used"} {
			total += client.MemoryUsage(ctx, key(system, part), 0).Val()
		}
		return total
	}
	fill := func(subject string, n, size int) (last domain.SessionRef) {
		for i := range n {
			last = refOf(subject, fmt.Sprintf("%026d", i))
			if ok, err := s.Save(ctx, last, "holder-of-20-bytes--", []byte(strings.Repeat("x", size))); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
		return last
	}
	honest := fill("eva", 1, 150)
	for _, size := range []int{41 << 10, 150} { // with 256 devices, and with none
		attacker := fill("mallory", 2000, size)
		if used := usage(); used > int64(limits.PerSubject)*5/4 {
			t.Errorf("one subject has %d bytes of %d", used, limits.PerSubject)
		}
		for _, ref := range []domain.SessionRef{honest, attacker} {
			if _, ok, err := s.Claim(ctx, ref, "holder-of-20-bytes--"); !ok || err != nil {
				t.Errorf("%s has no session any more: %v", ref.Subject, err)
			}
		}
	}
	t.Logf("%d sessions of one subject are %d bytes", client.HLen(ctx, key(system, "saved")).Val(), usage())
	for i := range 20 {
		fill(fmt.Sprint("mallory-", i), 10, 41<<10)
	}
	if used := usage(); used > int64(limits.PerSystem)*5/4 {
		t.Errorf("one system has %d bytes of %d", used, limits.PerSystem)
	}
	// The counted bytes are the stored bytes.
	var counted int
	for _, kept := range client.HGetAll(ctx, key(system, "saved")).Val() {
		counted += len(kept) + Overhead
	}
	if used, err := client.HGet(ctx, key(system, "used"), "").Int(); err != nil || used != counted {
		t.Errorf("%d bytes are counted, %d are there: %v", used, counted, err)
	}
	saved, expiring, owned := client.HLen(ctx, key(system, "saved")).Val(), client.ZCard(ctx, key(system, "expiring")).Val(),
		client.ZCard(ctx, key(system, "owned")).Val()
	if saved != expiring || saved != owned {
		t.Errorf("%d sessions, %d times, %d of subjects", saved, expiring, owned)
	}
	// A session larger than its subject's bound is kept alone.
	large := fill("carla", 2, 300<<10)
	if saved, ok, err := s.Claim(ctx, large, "h2"); !ok || err != nil || len(saved) != 300<<10 {
		t.Errorf("the large one is gone: %v", err)
	}
}
