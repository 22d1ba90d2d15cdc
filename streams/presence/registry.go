// Package presence lists the live nodes of a deployment and their sockets, in Redis. The list
// maintains itself: a node that stops writing is no longer listed after [TTL], and is forgotten
// [Missed] later.
package presence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/plugcast/plugcast/domain"
)

const (
	// TTL is how long a node is still listed after its last write.
	TTL = 10 * time.Second
	// Missed is how long [Registry.Expected] reports a node as missing that stopped writing
	// without leaving: it may be frozen, with all of its sockets open.
	Missed = time.Minute
	// beatEvery is how often a node writes that it lives, and its figures.
	beatEvery = time.Second
	// flushEvery bounds how long a socket waits to be listed. Thousands of sockets that
	// connect at once cost a few writes.
	flushEvery = 100 * time.Millisecond
	// batch is the most sockets in one write.
	batch = 500
)

// Registry lists the sockets of this node in Redis, and reads those of all nodes. It is safe
// for concurrent use. Put, Remove and Own never wait for Redis.
type Registry struct {
	client redis.UniversalClient
	prefix string
	node   string
	logger *slog.Logger

	mu      sync.Mutex
	own     map[string]domain.Socket // all sockets of this node
	changed map[string]bool          // ids to write (in own) or to remove (not in own)

	joined bool // the first beat was written; used by Run alone
}

// New returns the registry of one node. Node names are unique in a deployment.
func New(client redis.UniversalClient, prefix, node string, logger *slog.Logger) *Registry {
	return &Registry{
		// One slot of a cluster: the registry is small, and its nodes are read together.
		client: client, prefix: prefix + ":{presence}:", node: node, logger: logger,
		own: map[string]domain.Socket{}, changed: map[string]bool{},
	}
}

// Put lists a socket of this node, or replaces what is listed for it.
func (r *Registry) Put(s domain.Socket) {
	s.Node = r.node
	r.mu.Lock()
	r.own[s.SocketID] = s
	r.changed[s.SocketID] = true
	r.mu.Unlock()
}

// Remove removes a socket of this node from the list.
func (r *Registry) Remove(socketID string) {
	r.mu.Lock()
	delete(r.own, socketID)
	r.changed[socketID] = true
	r.mu.Unlock()
}

// Run keeps the list up to date until ctx ends, and then removes this node from it. Once a
// second it calls figures, which returns the node's own figures as JSON.
func (r *Registry) Run(ctx context.Context, figures func() json.RawMessage) error {
	beat, flush := time.NewTicker(beatEvery), time.NewTicker(flushEvery)
	defer beat.Stop()
	defer flush.Stop()
	r.beat(ctx, figures())
	for {
		var err error
		select {
		case <-ctx.Done():
			return r.leave(context.WithoutCancel(ctx))
		case <-flush.C:
			err = r.flush(ctx)
		case <-beat.C:
			r.beat(ctx, figures())
		}
		if err != nil && ctx.Err() == nil {
			r.logger.Warn("presence: cannot write sockets; trying again", "error", err)
		}
	}
}

// beatScript records that a node lives, by Redis' clock and not by the node's, and since when.
// It returns how many sockets of the node are listed.
//
// KEYS: nodes, figures of this node, sockets of this node, joined, rooms of this node. ARGV:
// node, figures, TTL in seconds, seconds until a node is forgotten, 1 if this is the first beat
// of its process.
var beatScript = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1]
redis.call('ZADD', KEYS[1], now, ARGV[1])
local joined = string.format('%.0f', now * 1000 + math.floor(time[2] / 1000))
redis.call(ARGV[5] == '1' and 'HSET' or 'HSETNX', KEYS[4], ARGV[1], joined)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. (now - ARGV[4]))) do
	redis.call('ZREM', KEYS[1], gone)
	redis.call('HDEL', KEYS[4], gone)
end
if ARGV[5] == '1' then -- a killed process of the same name may have left sockets behind
	redis.call('DEL', KEYS[3], KEYS[5])
end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
redis.call('EXPIRE', KEYS[3], ARGV[3])
redis.call('EXPIRE', KEYS[5], ARGV[3])
return math.min(redis.call('HLEN', KEYS[3]), redis.call('ZLEXCOUNT', KEYS[5], '[/', '(0'))
`)

func (r *Registry) beat(ctx context.Context, figures json.RawMessage) {
	ctx, cancel := context.WithTimeout(ctx, beatEvery)
	defer cancel()
	keys := []string{r.nodesKey(), r.figuresKey(r.node), r.socketsKey(r.node), r.joinedKey(), r.roomsKey(r.node)}
	listed, err := beatScript.Run(ctx, r.client, keys, r.node, []byte(figures),
		int(TTL.Seconds()), int((TTL + Missed).Seconds()), !r.joined).Int()
	if err != nil {
		if !errors.Is(ctx.Err(), context.Canceled) {
			r.logger.Warn("presence: cannot write that this node lives", "error", err)
		}
		return
	}
	r.joined = true
	r.mu.Lock()
	if listed != len(r.own) && len(r.changed) == 0 {
		// Redis lost sockets: it was restarted, or this node was frozen for longer than the
		// TTL. Write all of them again.
		for id := range r.own {
			r.changed[id] = true
		}
	}
	r.mu.Unlock()
}

// flushScript adds sockets to the list and removes others. The rooms of a node are a sorted set
// with the member ROOM/SOCKET for each room of a socket, and /SOCKET for every socket, so that
// a page of one room is a range.
//
// KEYS: sockets of this node, rooms of this node. ARGV: TTL in seconds, and per socket its id
// and its JSON, "" if it has gone.
var flushScript = redis.NewScript(`
local function rooms(raw)
	local ok, socket = pcall(cjson.decode, raw or '')
	if ok and type(socket) == 'table' and type(socket.systems) == 'table' then return socket.systems end
	return {}
end
for i = 2, #ARGV, 2 do
	local id, socket = ARGV[i], ARGV[i + 1]
	for _, room in ipairs(rooms(redis.call('HGET', KEYS[1], id))) do redis.call('ZREM', KEYS[2], room .. '/' .. id) end
	if socket == '' then
		redis.call('HDEL', KEYS[1], id)
		redis.call('ZREM', KEYS[2], '/' .. id)
	else
		redis.call('HSET', KEYS[1], id, socket)
		redis.call('ZADD', KEYS[2], 0, '/' .. id)
		for _, room in ipairs(rooms(socket)) do redis.call('ZADD', KEYS[2], 0, room .. '/' .. id) end
	end
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[1])
`)

func (r *Registry) flush(ctx context.Context) error {
	for {
		ids, args := r.take()
		if len(ids) == 0 {
			return nil
		}
		err := flushScript.Run(ctx, r.client, []string{r.socketsKey(r.node), r.roomsKey(r.node)}, args...).Err()
		if err != nil && !errors.Is(err, redis.Nil) {
			r.giveBack(ids)
			return fmt.Errorf("presence: write sockets: %w", err)
		}
	}
}

// take removes at most a batch of changes from those that wait, as arguments of flushScript.
func (r *Registry) take() (ids []string, args []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	args = []any{int(TTL.Seconds())}
	for id := range r.changed {
		if len(ids) == batch {
			break
		}
		delete(r.changed, id)
		ids = append(ids, id)
		value := []byte{}
		if s, live := r.own[id]; live {
			value, _ = json.Marshal(s) // strings, and a time from time.Now: never fails
		}
		args = append(args, id, value)
	}
	return ids, args
}

func (r *Registry) giveBack(ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		r.changed[id] = true
	}
}

func (r *Registry) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.ZRem(ctx, r.nodesKey(), r.node)
		p.HDel(ctx, r.joinedKey(), r.node)
		p.Del(ctx, r.figuresKey(r.node), r.socketsKey(r.node), r.roomsKey(r.node))
		return nil
	})
	if err != nil {
		return fmt.Errorf("presence: leave: %w", err)
	}
	return nil
}

// Nodes returns the figures that each live node wrote last, by node name.
func (r *Registry) Nodes(ctx context.Context) (map[string]json.RawMessage, error) {
	names, err := r.live(ctx)
	if err != nil || len(names) == 0 {
		return map[string]json.RawMessage{}, err
	}
	keys := make([]string, len(names))
	for i, name := range names {
		keys[i] = r.figuresKey(name)
	}
	values, err := r.client.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, fmt.Errorf("presence: read nodes: %w", err)
	}
	nodes := make(map[string]json.RawMessage, len(names))
	for i, value := range values {
		if text, ok := value.(string); ok {
			nodes[names[i]] = json.RawMessage(text)
		}
	}
	return nodes, nil
}

// Own returns the sockets of this node, in no order.
func (r *Registry) Own() []domain.Socket {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.own))
}

// Expected returns the nodes that should answer a request to every process: the live nodes, and
// the missing nodes, which stopped writing within [Missed] without leaving. Both lists are in
// order of name. A node that left in order is in neither. A node that joined after asOf, by
// Redis' clock, is left out, unless asOf is zero.
func (r *Registry) Expected(ctx context.Context, asOf time.Time) (live, missing []string, err error) {
	now, err := r.client.Time(ctx).Result()
	if err != nil {
		return nil, nil, fmt.Errorf("presence: expected nodes: %w", err)
	}
	var nodes *redis.ZSliceCmd
	var joined *redis.MapStringStringCmd
	_, err = r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		nodes = p.ZRangeByScoreWithScores(ctx, r.nodesKey(), &redis.ZRangeBy{
			Min: fmt.Sprint(now.Add(-TTL - Missed).Unix()), Max: "+inf",
		})
		joined = p.HGetAll(ctx, r.joinedKey())
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("presence: expected nodes: %w", err)
	}
	for _, node := range nodes.Val() {
		name, _ := node.Member.(string)
		since, err := strconv.ParseInt(joined.Val()[name], 10, 64)
		if err == nil && !asOf.IsZero() && since > asOf.UnixMilli() {
			continue
		}
		if int64(node.Score) >= now.Add(-TTL).Unix() {
			live = append(live, name)
		} else {
			missing = append(missing, name)
		}
	}
	slices.Sort(live)
	slices.Sort(missing)
	return live, missing, nil
}

// live returns the nodes that wrote within the TTL, by Redis' clock.
func (r *Registry) live(ctx context.Context) ([]string, error) {
	now, err := r.client.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("presence: read nodes: %w", err)
	}
	names, err := r.client.ZRangeByScore(ctx, r.nodesKey(), &redis.ZRangeBy{
		Min: fmt.Sprint(now.Add(-TTL).Unix()), Max: "+inf",
	}).Result()
	if err != nil {
		return nil, fmt.Errorf("presence: read nodes: %w", err)
	}
	return names, nil
}

func (r *Registry) nodesKey() string              { return r.prefix + "nodes" }
func (r *Registry) joinedKey() string             { return r.prefix + "joined" }
func (r *Registry) figuresKey(node string) string { return r.prefix + "node:" + node }
func (r *Registry) socketsKey(node string) string { return r.prefix + "sockets:" + node }
func (r *Registry) roomsKey(node string) string   { return r.prefix + "rooms:" + node }
