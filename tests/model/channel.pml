/*
 * Model of docs/explanation/channel-protocol.md, whose names it uses, for spin, with every message out of
 * line.  tests/model/CMakeLists.txt has the runs: which parties there are, what may happen to them,
 * and the bugs that must be found.
 *
 * A party may die before any step (Fate), or stop there until the others have nothing left to do; then
 * it goes on.  A step is one access to shared memory, a CAS is one.  Memory is sequentially
 * consistent: what the program does to have it so is not modelled, nor are sleep and wake, for no sleep
 * lasts: a wait is a guard, and `timeout`, when nobody can do anything, a deadline.
 *
 * What is asserted: nobody touches a block that is not its own; a message is whole and is received
 * once at most, and once exactly unless a dead receiver's hand names it; who is told that the channel
 * is closed and empty is right; who gives up at a deadline has a reason; at the end all blocks are free
 * but those of messages that nobody received, and the locks are, too.
 *
 * With POLL no receiver waits but for an edge of the eventfd; nobody may sleep, nor the eventfd be
 * unreadable, while there is a message or the channel is closed.  The closer, too, may die.
 */
#ifndef SENDERS
#define SENDERS 2
#endif
#ifndef RECEIVERS
#define RECEIVERS 2
#endif
#ifndef MESSAGES
#define MESSAGES 1 /* of each sender */
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#ifndef BLOCKS
#define BLOCKS 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef STOPS
#define STOPS 0
#endif

#define PARTIES (SENDERS + RECEIVERS)
#define ALL (SENDERS * MESSAGES + 1) /* there may be none */
#define NOTHING 255

/* The states of a block. */
#define FREE 0
#define QUEUED(p) (1 + 2 * (p))
#define OWNED(p) (2 + 2 * (p))
#define NOBODY PARTIES
#define is_of(w, p) (w == QUEUED(p) || w == OWNED(p))

/* The segment. */
byte head, tail;
/* 0, or the holder + 1; with REST, which allows each lock to rest once, also at_rest(holder) or
 * withdrawn(holder).  `inside`: who entered a lock that rests, + 1. */
byte S, R;
byte S_inside, R_inside;
bool S_rested, R_rested;
#define at_rest(p) (20 + (p))
#define withdrawn(p) (40 + (p))
#define holder(l) (l >= 40 -> l - 40 : (l >= 20 -> l - 20 : l - 1))
#define is_at_rest(l) (l >= 20)
/* The ring, in chunks of one slot: chunk n, which is message n, lies in slot place[n].  `used[n]`: how
 * many slots the ring had used up to it.  The program keeps the last 512 of both, the model keeps all. */
byte slot[SLOTS];
byte place[ALL], used[ALL];
byte word[BLOCKS];
byte first_half[BLOCKS], second_half[BLOCKS]; /* of the payload */
byte hand[PARTIES + 1] = NOTHING;
bool closed;
#ifdef POLL
bool closing, closer_dead, signalled;
byte D; /* 0, or the drainer + 1 */
#define FOR_EVER 100
#else
#define D 0
#endif

/* The kernel. */
#ifdef POLL
byte event;
bool edge[PARTIES];
#endif
bool dead[PARTIES + 1], stopped[PARTIES];
byte deaths, stops;

/* What sweeps say of the dead. */
bool swept[PARTIES];
bool is_lost[PARTIES]; /* the message in its hand */

/* What really happened, for the assertions. */
bool ended[PARTIES];
bool saw_end;             /* some receiver was told that it is closed and empty */
byte sent_as[ALL];        /* by number: the message */
byte received_by[ALL]; /* by message: the receiver + 1 */

#define is_to_sweep(p) (dead[p] && !swept[p])
#define any_to_sweep (is_to_sweep(0) || is_to_sweep(1) || is_to_sweep(2) || is_to_sweep(PARTIES - 1))
#define any_free (word[0] == FREE || word[1] == FREE || word[BLOCKS - 1] == FREE)
#define any_stopped (stopped[0] || stopped[1] || stopped[2] || stopped[PARTIES - 1])
#define no_receiver (ended[SENDERS] || dead[SENDERS]) && (ended[PARTIES - 1] || dead[PARTIES - 1])

/* CAS 0 -> me, or that of a dead holder; gives up at the deadline, as the timed forms. */
inline lock(l, inside) {
  failed = false;
  do
  :: atomic { l == 0 -> l = me + 1; taken_over = false }; break
  :: atomic { l != 0 && dead[holder(l)] -> l = me + 1; taken_over = true }; break
#ifdef BUG_STOPPED_IS_DEAD
  :: atomic { l != 0 && stopped[holder(l)] -> l = me + 1; taken_over = true }; break
#endif
#ifdef REST
  :: l == at_rest(me) ->
     inside = me + 1;
     if
#ifndef BUG_NO_SECOND_LOOK
     :: l != at_rest(me) -> inside = 0
     :: else ->
#else
     :: true ->
#endif
        taken_over = false; break
     fi
  :: atomic { is_at_rest(l) && l < withdrawn(0) && l != at_rest(me) -> l = l + 20 }
  :: atomic {
#ifndef BUG_WITHDRAWN_IS_FREE
       l >= withdrawn(0) && inside == 0
#else
       l >= withdrawn(0)
#endif
       -> t = l
     }
     atomic {
       if
       :: l == t -> l = 0
       :: else
       fi;
       t = 0
     }
#endif
  :: timeout -> assert(any_stopped); failed = true; break
  od
}

inline unlock(l, inside, rested) {
#ifdef REST
  if
  :: is_at_rest(l) -> inside = 0
  :: !is_at_rest(l) -> l = 0
  :: atomic { !is_at_rest(l) && !rested -> rested = true; l = at_rest(me) }
  fi
#else
  l = 0
#endif
}

/* Whether whoever held S when it was h has left it. */
#define has_left(h) (h == 0 || S == 0 || holder(S) != holder(h) || (is_at_rest(S) && S_inside == 0))

inline lock_R() {
  lock(R, R_inside);
  if
  :: !failed && taken_over -> repair()
  :: else
  fi;
  taken_over = false
}

inline repair() {
#ifndef BUG_NO_REPAIR
  i = 0;
  do
  :: atomic {
       do
       :: i < PARTIES && (hand[i] == NOTHING || hand[i] < head) -> i++
       :: else -> break
       od;
       if
       :: i == PARTIES -> i = 0; break
       :: else
       fi
     }
     atomic { hand[i] = NOTHING; i++ }
  od
#else
  skip
#endif
}

#ifdef POLL
inline signal(count) {
  d_step {
    event = event + count;
    i = SENDERS;
    do
    :: i < PARTIES -> edge[i] = true; i++
    :: else -> i = 0; break
    od
  }
}

inline close() {
  closing = true;
  signal(FOR_EVER);
  closed = true
}

/* What a try form does that found nothing; `again` if it may have come too late. */
inline drain() {
  again = false;
  if
  :: event == 0
  :: event > 0 ->
#ifndef BUG_DRAIN_ALONE
     if
     :: atomic { D == 0 || (D != 0 && dead[D - 1]) -> D = me + 1 }
     :: timeout -> assert(any_stopped); goto over
     fi;
     h = S;
     if
     :: has_left(h)
     :: h != 0 && dead[holder(h)]
     :: timeout -> assert(any_stopped); D = 0; goto over
     fi;
     h = 0;
#endif
     if
     :: head == tail && !closing ->
        signalled = false;
        do
        :: !closing && event > 0 -> event--
        :: else -> break
        od
     :: head == tail && closing && !closed -> close(); again = true
     :: else -> again = true
     fi;
#ifdef BUG_DRAIN_ALONE
     if
     :: head != tail || closed -> signal(1)
     :: else
     fi
#else
     D = 0
#endif
  fi
}
#endif

/* By the holder of S. */
inline enter_chunk() {
  h = head;
  t = (tail == 0 -> 0 : used[tail - 1]);
  if
#ifdef BUG_REUSED_TOO_SOON
  :: t != 0 -> i = place[tail - t]
#else
  :: tail - h < t -> i = place[tail - t]
#endif
  :: else -> i = t; t++
  fi;
  assert(i < SLOTS);
  d_step { place[tail] = i; used[tail] = t; h = 0; t = 0; i = 0 }
}

inline sweep() {
  atomic {
    any_to_sweep;
    p = 0;
    do
    :: !is_to_sweep(p) -> p++
    :: else -> break
    od
  }
  /* 1: the locks */
  if
  :: atomic { S != 0 && holder(S) == p -> S = me + 1 }; S = 0
  :: S == 0 || holder(S) != p
  fi;
  if
  :: atomic { R != 0 && holder(R) == p -> R = me + 1 }; repair(); R = 0
  :: R == 0 || holder(R) != p
  fi;
  /* 2: the hand */
  h = head;
  if
  :: hand[p] == NOTHING || hand[p] >= h
  :: else -> is_lost[p] = true
  fi;
  /* 3: the blocks */
  h = head;
  t = tail;
  referenced = 0;
  do
  :: h < t ->
     i = slot[place[h]];
     if
     :: head <= h -> referenced = referenced | (1 << i)
     :: else
     fi;
     h++
  :: else -> break
  od;
  atomic { i = 0; h = 0; t = 0 }
  do
  :: atomic {
       do
       :: i < BLOCKS && !is_of(word[i], p) -> i++
       :: else -> break
       od;
       if
       :: i == BLOCKS -> break
       :: else -> seen = word[i]
       fi
     }
     if
#ifndef BUG_QUEUED_IS_FREED
     :: referenced & (1 << i) ->
        atomic {
          if
          :: word[i] == seen -> word[i] = QUEUED(NOBODY)
          :: else
          fi
        }
     :: !(referenced & (1 << i)) ->
#else
     :: true ->
#endif
        if
        :: atomic { word[i] == seen -> word[i] = OWNED(me) };
           word[i] = FREE
        :: word[i] != seen
        fi
     fi;
     atomic { seen = 0; i++ }
  od;
  /* 4 */
  atomic { swept[p] = true; i = 0; p = 0; referenced = 0 }
}

proctype Sender(byte me) provided (!stopped[me]) {
  byte b, i, h, t, p, seen, referenced, m;
  bool taken_over, failed;
  {
    do
    :: m < MESSAGES ->
       /* allocate */
       do
       :: any_free ->
          atomic {
            b = 0;
            do
            :: b < BLOCKS && word[b] != FREE -> b++
            :: else -> break
            od;
            if
            :: b < BLOCKS -> word[b] = OWNED(me)
            :: else
            fi
          }
          if
          :: b < BLOCKS -> break
          :: else
          fi
#ifndef POLL /* there are blocks enough */
       :: sweep()
#endif
       :: timeout -> assert(any_stopped || no_receiver); goto over
       od;
       atomic { assert(word[b] == OWNED(me)); first_half[b] = me * MESSAGES + m }
       d_step { assert(word[b] == OWNED(me)); second_half[b] = me * MESSAGES + m }
       do
       :: lock(S, S_inside);
          taken_over = false;
          if
          :: failed -> goto drop
          :: else
          fi;
          if
          :: closed -> unlock(S, S_inside, S_rested); goto drop
          :: else
          fi;
          if
          :: tail - head < SLOTS && D == 0 -> break
          :: else
          fi;
          unlock(S, S_inside, S_rested);
#ifdef POLL
          if
          :: D == 0
          :: atomic { D != 0 && dead[D - 1] -> D = 0 }
          :: timeout -> assert(any_stopped); goto drop
          fi;
#endif
          do
          :: tail - head < SLOTS -> break
#ifndef POLL
          :: sweep()
#endif
          :: timeout -> assert(any_stopped || no_receiver); goto drop
          od
       od;
#ifdef POLL
       if
       :: signalled
       :: else -> signal(1); signalled = true
       fi;
#endif
       enter_chunk();
#ifdef BUG_COMMIT_FIRST
       atomic { sent_as[tail] = me * MESSAGES + m; tail++ }
       slot[place[tail - 1]] = b;
       word[b] = QUEUED(me);
#else
       slot[place[tail]] = b;
       word[b] = QUEUED(me);
       d_step { sent_as[tail] = me * MESSAGES + m; tail++ }
#endif
       unlock(S, S_inside, S_rested);
       d_step { b = 0; m++ }
    :: else -> goto over
    od;
drop:
    assert(word[b] == OWNED(me));
    word[b] = FREE;
over:
    ended[me] = true
  } unless { dead[me] }
}

proctype Receiver(byte me) provided (!stopped[me]) {
  byte b, i, h, t, p, seen, referenced, m;
  bool taken_over, failed, again;
  {
    do
    :: hand[me] = NOTHING;
       lock_R();
       if
       :: failed -> goto over
       :: else
       fi;
       if
       :: head != tail ->
          b = slot[place[head]];
          word[b] = OWNED(me);
          hand[me] = head;
          head++;
          unlock(R, R_inside, R_rested);
          d_step { assert(word[b] == OWNED(me)); m = first_half[b] }
          d_step {
            assert(word[b] == OWNED(me));
            assert(hand[me] != NOTHING);
            assert(m == second_half[b] && m == sent_as[hand[me]]);
            assert(received_by[m] == 0);
            received_by[m] = me + 1;
            m = 0
          }
          d_step { assert(word[b] == OWNED(me)); word[b] = FREE; b = 0 }
       :: else ->
          unlock(R, R_inside, R_rested);
          if
          :: closed ->
             h = S;
             if
             :: has_left(h)
             :: h != 0 && dead[holder(h)] ->
                if
                :: atomic { h != 0 && S == h -> S = me + 1 }; S = 0
                :: S != h
                fi
             :: timeout -> assert(any_stopped); goto over
             fi;
             h = 0;
             if
             :: head == tail -> saw_end = true; goto over
             :: else
             fi
          :: else ->
#ifdef POLL
             drain();
             if
             :: again -> again = false
             :: !again && edge[me] -> edge[me] = false
             :: timeout -> assert(any_stopped || (head == tail && !closed)); goto over
             fi
#else
             if
             :: head != tail || closed
             :: sweep()
             :: timeout -> goto over
             fi
#endif
          fi
       fi
    od;
over:
    ended[me] = true
  } unless { dead[me] }
}

/* Who owns the channel closes it, at some time. */
proctype Closer() {
#ifdef POLL
  byte i;
  {
    close()
  } unless { closer_dead }
#else
  closed = true
#endif
}

proctype Fate() {
  byte p;
  do
  :: deaths < DEATHS ->
     atomic {
       select(p : 0 .. PARTIES - 1);
       if
       :: !ended[p] && !dead[p] && !stopped[p] -> dead[p] = true; deaths++
       :: else
       fi;
       p = 0
     }
#ifdef POLL
  :: atomic { deaths < DEATHS && !closer_dead -> closer_dead = true; deaths++ }
#endif
  :: stops < STOPS ->
     atomic {
       select(p : 0 .. PARTIES - 1);
       if
       :: !ended[p] && !dead[p] && !stopped[p] -> stopped[p] = true; stops++
       :: else
       fi;
       p = 0
     }
  :: break
  od;
  /* SIGCONT, after the others have done what they can */
  if
  :: any_stopped ->
     timeout;
     d_step {
       do
       :: p < PARTIES -> stopped[p] = false; p++
       :: else -> break
       od;
       p = 0
     }
  :: else
  fi
}

inline start() {
  atomic {
    p = 0;
    do
    :: p < SENDERS -> run Sender(p); p++
    :: p >= SENDERS && p < PARTIES -> run Receiver(p); p++
    :: else -> p = 0; break
    od;
#ifndef OPEN
    run Closer();
#endif
    run Fate()
  }
}

/* Once all are gone, and the last has looked after the dead. */
inline check() {
  assert(S == 0 || (is_at_rest(S) && S_inside == 0));
  assert(R == 0 || (is_at_rest(R) && R_inside == 0));
  assert(!saw_end || head == tail);
#ifdef POLL
  assert(event > 0 || (head == tail && !closed));
#endif
  i = 0;
  do
  :: i < head ->
     lost = 0;
     p = 0;
     do
     :: p < PARTIES ->
        if
        :: is_lost[p] && hand[p] == i ->
           lost++;
           assert(received_by[sent_as[i]] == 0 || received_by[sent_as[i]] == p + 1)
        :: else
        fi;
        p++
     :: else -> break
     od;
     assert(lost <= 1 && (lost == 1 || received_by[sent_as[i]] != 0));
     i++
  :: else -> break
  od;
  referenced = 0;
  do
  :: i < tail -> referenced = referenced | (1 << slot[place[i]]); i++
  :: else -> break
  od;
  i = 0;
  do
  :: i < BLOCKS ->
     assert((word[i] == FREE) == !(referenced & (1 << i)));
     assert(word[i] == FREE || (word[i] & 1));
     i++
  :: else -> break
  od;
  i = 0
}

init {
  byte me = PARTIES;
  byte i, h, t, p, seen, referenced, lost;
  start();
  (_nr_pr == 1);
  do
  :: sweep()
  :: else -> break
  od;
  atomic { check() }
}
