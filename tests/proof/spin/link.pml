/* Host and MCU over a line that loses, repeats, delays and reorders, while either side may be reset at any moment.
 * docs/protocol-model.md explains the claims and what is left out.
 *
 * Modelled: the boot session, the epoch of the configuration, the number of a chunk, the nonce of a latch, the acts of the
 * operator. Not modelled: time ("the host is silent" is: the MCU may stop at any moment) and the motion itself. The nonce of
 * HELLO is left out too: the host believes any HELLO while it asks, which is worse than what it does.
 *
 * A ghost bit travels with every message: `current` says that the MCU has not lost permission to move (reset, disarm, stop,
 * emergency stop) since the report that the message rests on. Losing permission clears it everywhere. No rule of the
 * protocol reads it; the claims do. -DBREAK_x takes one rule out, and must be found. -DMISHAPS=n bounds the line's misdeeds. */

#ifndef BOOTS
#define BOOTS 2   /* lives of the MCU */
#endif
#ifndef HOSTS
#define HOSTS 2   /* lives of the host */
#endif
#ifndef EPOCHS
#define EPOCHS 2  /* configurations in one life of the MCU */
#endif
#define CHUNKS 2  /* chunk numbers */
#ifndef LATCHES
#define LATCHES 2 /* emergency stops */
#endif

/* the rules, each of which can be taken out */
#ifdef BREAK_SESSION
#define THIS_SESSION true
#else
#define THIS_SESSION (s == session)
#endif
#ifdef BREAK_EPOCH
#define THIS_EPOCH true
#else
#define THIS_EPOCH (e == epoch)
#endif
#ifdef BREAK_ORDER
#define NEWER true
#else
#define NEWER (n > chunk)
#endif
#ifdef BREAK_NONCE
#define NEXT_NONCE latch_nonce
#else
#define NEXT_NONCE (latch_nonce + 1)
#endif
#ifdef BREAK_LATCH
#define AFTER_RESET false
#else
#define AFTER_RESET latched
#endif
#ifdef BREAK_ESTOP
#define ESTOP_TAKEN (s == session)
#else
#define ESTOP_TAKEN true
#endif
#ifdef BREAK_RESYNC
#define FOREIGN skip /* a report of another session is ignored */
#else
#define FOREIGN asking = true
#endif
#ifdef BREAK_RESEND
#define ESTOP_SENT wish_sent = true
#else
#define ESTOP_SENT skip
#endif
#ifdef MISHAPS
#define MISHAP (mishaps < MISHAPS)
#define COUNT mishaps++
#else
#define MISHAP true
#define COUNT skip
#endif
#ifdef LIVE
#define PLACE empty(up) /* one place stays free for what is repeated */
#else
#define PLACE nfull(up)
#endif
#ifdef BREAK_OPERATOR
#define PRESS skip /* the host arms by itself */
#else
#define PRESS pressed = true
#endif

mtype = { ASK, COMMIT, ARM, DISARM, CHUNK, ESTOP, CLEAR };
mtype = { DISARMED, CONFIGURED, ARMED, STOPPED };

/* type, session, epoch, number of a chunk or nonce of a latch, ghost */
chan up = [2] of { mtype, byte, byte, byte, bool };
/* an answer to ASK or a report: answer?, session, epoch, nonce, state, ghost */
chan down = [1] of { bool, byte, byte, byte, mtype, bool };

/* the MCU */
mtype state = DISARMED;
byte session = 1;
byte epoch = 0;
byte chunk = 0;
byte latch_nonce = 0;
bool latched = false;
bool answer = false; /* owes an answer to ASK */

/* the host: what it believes */
byte h_session = 0; /* 0: knows nobody */
byte h_epoch = 0;
byte h_chunk = 0;
byte h_nonce = 0;
mtype h_state = DISARMED;
bool asking = true;
bool wish = false;  /* the emergency stop is pressed and no report has shown the latch yet */
bool wish_sent = false;
byte hosts = 1;

/* ghosts */
bool h_current = false;
bool pressed = false;    /* the operator has armed since the last arming */
bool must_stand = false; /* an emergency stop arrived and was not cleared by the operator who saw it */
byte latches = 0;
byte mishaps = 0;

inline lose_permission()
{
    h_current = false;
    i = len(up);
    do
    :: i > 0 -> up?gt,gs,ge,gn,gg; up!gt,gs,ge,gn,false; i--
    :: i == 0 -> break
    od;
    if
    :: nempty(down) -> down?ga,gs,ge,gn,gt,gg; down!ga,gs,ge,gn,gt,false
    :: empty(down)
    fi;
    gt = ASK; gs = 0; ge = 0; gn = 0; gg = false; ga = false
}

inline take()
{
    if
    :: t == ASK -> answer = true
    :: t == ESTOP ->
        if
        :: ESTOP_TAKEN && !latched && latches < LATCHES ->
            latched = true; must_stand = true; latches++; latch_nonce = NEXT_NONCE; state = STOPPED;
            lose_permission()
        :: else
        fi;
        assert(latched || latches == LATCHES) /* an emergency stop that arrived is latched, whoever sent it */
    :: t != ASK && t != ESTOP && THIS_SESSION ->
        if
        :: t == COMMIT && state == DISARMED && epoch < EPOCHS -> epoch++; state = CONFIGURED
        :: t == ARM && state == CONFIGURED && THIS_EPOCH ->
            assert(g);              /* the operator armed what is there now */
            assert(pressed);        /* one act of the operator, one arming at most */
            assert(!must_stand);    /* an emergency stop wins until it is cleared */
            pressed = false; state = ARMED; chunk = 0
        :: t == CHUNK && state == ARMED && THIS_EPOCH && NEWER ->
            assert(g);              /* not stale: nothing took permission away since the host planned it */
            assert(n > chunk);      /* and not older than what is under way */
            chunk = n
        :: t == DISARM && (state == ARMED || state == CONFIGURED) -> state = DISARMED; lose_permission()
        :: t == CLEAR && latched && n == latch_nonce ->
            assert(g);              /* the operator cleared this stop, not an earlier one */
            latched = false; must_stand = false; state = DISARMED
        :: else                     /* refused */
        fi
    :: else                         /* another session: refused */
    fi;
    t = ASK; s = 0; e = 0; n = 0; g = false
}

active proctype Mcu()
{
    mtype t, gt;
    byte s, e, n, i, gs, ge, gn;
    bool g, ga, gg;
    do
    :: atomic { up?t,s,e,n,g -> take() }
    :: atomic { state == ARMED -> state = DISARMED; lose_permission() } /* silence, a dry plan, a stop */
    :: atomic { session < BOOTS -> session++; epoch = 0; chunk = 0; answer = false; latched = AFTER_RESET; latch_nonce = NEXT_NONCE;
        if
        :: latched -> state = STOPPED
        :: else -> state = DISARMED
        fi;
        lose_permission() }
    od
}

active proctype Reports()
{
    do
    :: atomic { nfull(down) -> down!answer,session,epoch,latch_nonce,state,true; answer = false }
    od
}

/* The host's ears. */
active proctype Listen()
{
    mtype st;
    byte s, e, n;
    bool a, g;
    do
    :: atomic { down?a,s,e,n,st,g ->
        if
        :: a && asking ->
            asking = false;
            if
            :: s != h_session || e != h_epoch -> h_chunk = 0
            :: else
            fi;
            h_session = s; h_epoch = e; h_nonce = n; h_state = st; h_current = g
        :: !a && s == h_session && e == h_epoch -> h_nonce = n; h_state = st; h_current = g
        :: !a && s == h_session && e != h_epoch -> h_state = DISARMED; asking = true /* somebody configured */
        :: !a && s != h_session -> FOREIGN                                           /* somebody was reset */
        :: else
        fi;
        if
        :: s == h_session && st == STOPPED -> wish = false; wish_sent = false
        :: else
        fi;
        a = false; s = 0; e = 0; n = 0; st = DISARMED; g = false }
    od
}

/* What the host repeats until it is answered, by turns: an emergency stop does not wait for a HELLO, nor HELLO for the stop. */
active proctype Repeat()
{
    do
    :: wish || asking ->
        if
        :: atomic { wish && !wish_sent && nfull(up) -> up!ESTOP,h_session,0,0,false; ESTOP_SENT }
        :: !(wish && !wish_sent)
        fi;
        if
        :: atomic { asking && nfull(up) -> up!ASK,0,0,0,false }
        :: !asking
        fi
    od
}

/* What the host says once, and what the operator does. */
active proctype Host()
{
    do
    :: atomic { h_session != 0 && h_state == DISARMED && PLACE -> up!COMMIT,h_session,0,0,h_current }
    :: atomic { h_state == ARMED && h_chunk < CHUNKS && PLACE -> h_chunk++; up!CHUNK,h_session,h_epoch,h_chunk,h_current }
    :: atomic { h_state == CONFIGURED && PLACE -> PRESS; up!ARM,h_session,h_epoch,0,h_current }
    :: atomic { (h_state == ARMED || h_state == CONFIGURED) && PLACE -> up!DISARM,h_session,0,0,h_current }
    :: atomic { h_state == STOPPED && PLACE -> up!CLEAR,h_session,0,h_nonce,h_current }
    :: atomic { !wish && latches < LATCHES -> wish = true }
    :: atomic { hosts < HOSTS -> hosts++; h_session = 0; h_epoch = 0; h_chunk = 0; h_nonce = 0; h_state = DISARMED;
        h_current = false; asking = true; wish = false; wish_sent = false } /* restart */
    od
}

#define PUT_BACK up!t,s,e,n,g
#define FORGET t = ASK; s = 0; e = 0; n = 0; g = false; COUNT

active proctype Line()
{
    mtype t;
    byte s, e, n;
    bool a, g;
    do
    :: atomic { MISHAP && nempty(up) -> up?t,s,e,n,g; FORGET }                        /* loses a command */
    :: atomic { MISHAP && nempty(down) -> down?a,s,e,n,t,g; a = false; FORGET }       /* loses a report */
    :: atomic { MISHAP && len(up) == 1 -> up?t,s,e,n,g; PUT_BACK; PUT_BACK; FORGET }  /* repeats */
    :: atomic { MISHAP && len(up) == 2 -> up?t,s,e,n,g; PUT_BACK; FORGET }            /* swaps */
    od
}

/* With mishaps that end and processes that are given their turn: the two find each other again ... */
ltl found_again { <> [] (h_session == session) }
/* ... and a pressed emergency stop arrives (the model has LATCHES of them). */
ltl stop_arrives { [] (wish -> <> (!wish || latches == LATCHES)) }
