------------------------------ MODULE PageView ------------------------------
(***************************************************************************)
(* Pages of one launched VM under two views, on a host with one CPU.       *)
(*                                                                         *)
(* The words are those of glossary.md, the table is states.md, and names   *)
(* such as C1 are rows of invariants.md.  One action here is one event of  *)
(* sim: a claim with its decision, one step of a batch, one load or store. *)
(* So TLC must find as many states as sim does where the shipped core is   *)
(* explored; sim/tests/tlc.rs compares the two.                            *)
(***************************************************************************)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
  Pages,       \* of the VM, by name
  Frames,      \* of the host; there is one at least for each page
  Replicas,    \* the platform's pool
  CPUs,        \* that may have a batch under way: 0..n
  Asks,        \* which asks occur
  VersionsMax, \* how often a page may be sealed
  StoresMax,   \* how often guests store
  DropsMax,    \* how many batches are dropped
  Raw,         \* whether the management side maps frames that are nobody's
  Mutant       \* what is wrong on purpose; "none"

VARIABLES
  row,     \* the core's table: what each page is
  owner,   \* the core's table of frames
  batch,   \* for each CPU, its plan and the steps that are left, or Idle
  stopped, \* whether the VM has stopped for good
  host,    \* memory, tables, what the CPU remembers, what management keeps
  known,   \* what the checker knows of each page
  used     \* stores and drops so far

vars == <<row, owner, batch, stopped, host, known, used>>

None == "none"
Places == Frames \cup Replicas

-----------------------------------------------------------------------------
(* Bytes are terms: what is sealed is read by nobody but who has the key.  *)

Zero      == [what |-> "zero"]
Public    == [what |-> "public"]
Secret(n) == [what |-> "secret", store |-> n]
Shared(n) == [what |-> "shared", store |-> n]
Sealed(s) == [what |-> "sealed", seal |-> s]

Declassified(bytes) ==
  IF bytes.what = "secret" THEN Shared(bytes.store) ELSE bytes

(* The label, the terms on which the page is open, and what is inside.  A  *)
(* seal of sealed bytes would hold what the management side knows anyway.  *)
Seal(p, version, stream, terms, bytes) ==
  [page |-> p, version |-> version, stream |-> stream, terms |-> terms,
   inner |-> IF bytes.what = "sealed" THEN Public ELSE bytes]

-----------------------------------------------------------------------------
(* The life of a page: states.md, for the asks of a VM that is launched.   *)

Management == "management"
Guest      == "owner"

Opening(name) == name \in {"Share(Read)", "Share(ReadWrite)"}
OpenTo(name)  == IF name = "Share(Read)" THEN "Read" ELSE "ReadWrite"

(* What a page becomes; None if the ask is refused. *)
After(r, name) ==
  LET from(states, next) == IF r.state \in states THEN next ELSE None IN
  CASE name = "Map(Read)" ->
         IF r.state \in {"Private", "Replica"} THEN "Replica"
         ELSE from({"Sealed", "Open"}, r.state)
    [] name = "Map(ReadWrite)" ->
         IF r.terms = "ReadWrite" THEN "Open" ELSE None
    [] name = "Unmap" ->
         IF r.state = "Replica" THEN "Private"
         ELSE from({"Sealed", "Open"}, r.state)
    [] name = "Export(Image)" ->
         from({"Private", "Replica", "Open"}, r.state)
    [] name = "Seal"    -> from({"Private", "Replica"}, "Sealed")
    [] name = "PageOut" -> from({"Private", "Replica", "Sealed"}, "PagedOut")
    [] name = "PageIn"  -> from({"PagedOut"}, "Sealed")
    [] name = "Destroy" ->
         IF r.state = "Poisoned" /\ Mutant # "revives" THEN "Poisoned"
         ELSE IF r.state = "Free" THEN None ELSE "Free"
    [] name = "Accept"  -> from({"Free"}, "Private")
    [] name = "Touch"   -> from({"Sealed"}, "Private")
    [] Opening(name)    -> from({"Private", "Replica"}, "Open")
    [] name = "Unshare" -> from({"Open"}, "Private")

Withdraw(view)          == <<"withdraw", view>>
Fence                   == <<"fence">>
Fetch                   == <<"fetch">>
SealTo(place, stream)   == <<"seal", place, stream>>
Open                    == <<"open">>
Scrub(copies)           == <<"scrub", copies>>
Grant(view, what, perm) == <<"grant", view, what, perm>>

GrantOwner == Grant(Guest, "plain", "ReadWrite")

(* Fences follow withdrawals, and only them. *)
Taken(views) ==
  CASE views = {}           -> <<>>
    [] views = {Guest}      -> <<Withdraw(Guest), Fence>>
    [] views = {Management} -> <<Withdraw(Management), Fence>>
    [] views = {Guest, Management} ->
         <<Withdraw(Guest), Withdraw(Management), Fence>>

(* The steps of an ask that is not refused. *)
Steps(state, name) ==
  LET ifReplica(a, b) == IF state = "Replica" THEN a ELSE b
      mapped(perm)    ==
        Grant(Management, IF state = "Sealed" THEN "sealed" ELSE "plain", perm)
  IN
  CASE name = "Map(Read)" /\ state \in {"Private", "Replica"} ->
         Taken(ifReplica({Management}, {}))
         \o <<SealTo("replica", "View"), Grant(Management, "replica", "Read")>>
    [] name = "Map(Read)" /\ state \notin {"Private", "Replica"} ->
         <<mapped("Read")>>
    [] name = "Map(ReadWrite)" -> <<mapped("ReadWrite")>>
    [] name = "Unmap" ->
         Taken({Management}) \o ifReplica(<<Scrub("replica")>>, <<>>)
    [] name = "Export(Image)" -> <<SealTo("wire", "Image")>>
    [] name = "Seal" ->
         Taken(ifReplica({Guest, Management}, {Guest}))
         \o <<SealTo("in place", "Resident")>>
         \o ifReplica(<<Scrub("replica")>>, <<>>)
         \o <<Grant(Management, "sealed", "Read")>>
    [] name = "PageOut" /\ state = "Sealed" ->
         Taken({Management}) \o <<Scrub("original")>>
    [] name = "PageOut" /\ state # "Sealed" ->
         Taken(ifReplica({Guest, Management}, {Guest}))
         \o <<SealTo("wire", "Resident"), Scrub(ifReplica("all", "original"))>>
    [] name = "PageIn" -> Taken({Management}) \o <<Fetch>>
    [] name = "Destroy" ->
         IF state = "PagedOut" THEN <<>>
         ELSE Taken({Guest, Management}) \o <<Scrub("all")>>
    [] name = "Accept" ->
         Taken({Management}) \o <<Scrub("original"), GrantOwner>>
    [] name = "Touch" -> Taken({Management}) \o <<Open, GrantOwner>>
    [] Opening(name) ->
         ifReplica(Taken({Management}) \o <<Scrub("replica")>>, <<>>)
         \o <<Grant(Management, "plain", OpenTo(name))>>
    [] name = "Unshare" -> Taken({Management}) \o <<GrantOwner>>

Seals(steps) == \E i \in DOMAIN steps : steps[i][1] = "seal"

(* A version is used up by a seal, and to tell two lives of a page apart. *)
Burns(state, name) ==
  Seals(Steps(state, name)) \/ Opening(name) \/ name = "Unshare"

-----------------------------------------------------------------------------
(* What the platform's calls do to the host: platform.rs, sentence by      *)
(* sentence.  `p` is the page, `f` its frame, `r` its row.                 *)

ReplicaOf(h, p) == {place \in Replicas : h.replicaOf[place] = p}

Withdrawn(h, p, f, view) ==
  IF view = Guest
  THEN IF Mutant = "keeps-owner" THEN h
       ELSE [h EXCEPT !.guestTable[p] = None]
  ELSE [h EXCEPT !.hostTable = [place \in Places |->
         IF place = f \/ place \in ReplicaOf(h, p)
         THEN None ELSE h.hostTable[place]]]

Nothing == [guest |-> [p \in Pages |-> None],
            host  |-> [place \in Places |-> None]]

Fenced(h) == IF Mutant = "forgets-fence" THEN h ELSE [h EXCEPT !.tlb = Nothing]

(* Where a replica goes: where the last one is, or to a free place. *)
Room(h, p) ==
  IF ReplicaOf(h, p) # {} THEN CHOOSE place \in ReplicaOf(h, p) : TRUE
  ELSE CHOOSE place \in Replicas : h.replicaOf[place] = None

SealOf(h, p, f, r, stream) == Seal(p, r.version, stream, r.terms, h.memory[f])

SealedTo(h, p, f, r, place, stream) ==
  LET seal   == SealOf(h, p, f, r, stream)
      placed ==
        CASE place = "replica" ->
               [h EXCEPT !.memory[Room(h, p)] =
                           IF Mutant = "replica-plain" THEN h.memory[f]
                           ELSE Sealed(seal),
                         !.replicaOf[Room(h, p)] = p]
          [] place = "in place" -> [h EXCEPT !.memory[f] = Sealed(seal)]
          [] place = "wire"     -> h
  IN [placed EXCEPT
       !.seals = @ \cup {seal},
       !.handed[p] = IF stream = "Resident" THEN Sealed(seal) ELSE @]

(* Genuine is what the verifier's own row describes, and nothing else. *)
Genuine(bytes, p, r) ==
  /\ bytes.what = "sealed"
  /\ \/ /\ bytes.seal = r.tag
        /\ bytes.seal.page = p
        /\ bytes.seal.version = r.version
        /\ bytes.seal.stream = "Resident"
     \/ /\ Mutant = "trusts-version"
        /\ bytes.seal.page = p
        /\ bytes.seal.stream = "Resident"

Opened(h, p, f, r) ==
  [h EXCEPT !.memory[f] = IF Genuine(@, p, r) THEN @.seal.inner ELSE Zero]

Scrubbed(h, p, f, copies) ==
  LET wiped == (IF copies = "replica" THEN {} ELSE {f})
               \cup (IF copies = "original" THEN {} ELSE ReplicaOf(h, p))
      kept  == IF Mutant = "skips-scrub" THEN {f} ELSE {}
      flows == Mutant = "writes-back" /\ copies = "replica"
  IN [h EXCEPT
       !.memory = [place \in Places |->
         IF place \in wiped \ kept THEN Zero
         ELSE IF flows /\ place = f THEN h.memory[Room(h, p)]
         ELSE h.memory[place]],
       !.replicaOf = [place \in Replicas |->
         IF place \in wiped THEN None ELSE h.replicaOf[place]]]

Granted(h, p, f, view, what, perm) ==
  IF view = Guest THEN [h EXCEPT !.guestTable[p] = f]
  ELSE LET place == IF what = "replica" /\ Mutant # "maps-original"
                    THEN Room(h, p) ELSE f
       IN [h EXCEPT !.hostTable[place] = perm]

Called(h, p, f, r, step) ==
  CASE step[1] = "withdraw" -> Withdrawn(h, p, f, step[2])
    [] step[1] = "fence"    -> Fenced(h)
    [] step[1] = "fetch"    -> [h EXCEPT !.memory[f] = h.handed[p]]
    [] step[1] = "seal"     -> SealedTo(h, p, f, r, step[2], step[3])
    [] step[1] = "open"     -> Opened(h, p, f, r)
    [] step[1] = "scrub"    -> Scrubbed(h, p, f, step[2])
    [] step[1] = "grant"    -> Granted(h, p, f, step[2], step[3], step[4])

-----------------------------------------------------------------------------
(* Who holds which page, and what an onlooker sees. *)

Idle == [page |-> None]

Busy   == {c \in CPUs : batch[c] # Idle}
Held(p) == \E c \in Busy : batch[c].page = p

(* While steps are under way, what the page would be if nobody finished. *)
Shown(p) ==
  IF \E c \in Busy : batch[c].page = p /\ batch[c].begun
  THEN LET c == CHOOSE c \in Busy : batch[c].page = p
       IN IF batch[c].after = "Free" THEN "Scrubbing" ELSE "Poisoned"
  ELSE row[p].state

Runs == ~stopped

Free           == [role |-> "free"]
Offered(p)     == [role |-> "offered", page |-> p]
Owned(p)       == [role |-> "owned", page |-> p]
Quarantined(p) == [role |-> "quarantined", page |-> p]

(* Replicas that are out, promised, or owed by a poisoned page. *)
ReplicasTaken ==
  Cardinality({p \in Pages : row[p].state = "Replica" \/ row[p].owes})
  + Cardinality({c \in Busy : batch[c].reserved})

-----------------------------------------------------------------------------
(* The start: every page accepted, private and zero, each in a frame.      *)

NoSeal == [page |-> None]

Home == CHOOSE home \in [Pages -> Frames] :
          \A p, q \in Pages : p # q => home[p] # home[q]

Init ==
  /\ row = [p \in Pages |->
       [state |-> "Private", terms |-> None, frame |-> Home[p],
        version |-> 0, tag |-> NoSeal, owes |-> FALSE]]
  /\ owner = [f \in Frames |->
       IF \E p \in Pages : Home[p] = f
       THEN Owned(CHOOSE p \in Pages : Home[p] = f) ELSE Free]
  /\ batch = [c \in CPUs |-> Idle]
  /\ stopped = FALSE
  /\ host =
       [memory     |-> [place \in Places |->
          IF \E p \in Pages : Home[p] = place THEN Zero ELSE Public],
        guestTable |-> Home,
        hostTable  |-> [place \in Places |-> None],
        tlb        |-> Nothing,
        replicaOf  |-> [place \in Replicas |-> None],
        seals      |-> {},
        handed     |-> [p \in Pages |-> Public]]
  /\ known = [p \in Pages |->
       [latest |-> Zero, consent |-> None, reclaimed |-> FALSE]]
  /\ used = [stores |-> 0, drops |-> 0]

-----------------------------------------------------------------------------
(* Claim and decide. *)

ByGuest(name) == name \in {"Touch", "Unshare"} \/ Opening(name)

Frame(p, frame) == IF frame = None THEN row[p].frame ELSE frame

TakesReplica(r, name) ==
  After(r, name) = "Replica" /\ r.state # "Replica"

Decide(c, p, name, frame) ==
  LET r == row[p] IN
  /\ batch' = [batch EXCEPT ![c] =
       [page |-> p, name |-> name, frame |-> frame, after |-> After(r, name),
        todo |-> Steps(r.state, name), begun |-> FALSE, forged |-> FALSE,
        reserved |-> TakesReplica(r, name), tag |-> r.tag]]
  /\ row' = [row EXCEPT ![p].version =
       IF Burns(r.state, name) /\ Mutant # "constant-version" THEN @ + 1 ELSE @]
  /\ owner' = IF frame = None THEN owner
              ELSE [owner EXCEPT ![frame] = Owned(p)]
  \* What is in a page when its owner opens it is shown, and no secret any more.
  /\ IF Opening(name)
     THEN /\ known' = [known EXCEPT
               ![p].consent = IF Mutant = "trusts-claim" THEN @ ELSE OpenTo(name),
               ![p].latest = Declassified(@)]
          /\ host' = [host EXCEPT !.memory[r.frame] = Declassified(@)]
     ELSE UNCHANGED <<known, host>>
  /\ UNCHANGED <<stopped, used>>

(* What the table refuses is left out; when the pool is full, the core is  *)
(* asked, and the page is as it was.                                       *)
MayAsk(p, name) ==
  /\ ~Held(p)
  /\ ByGuest(name) => Runs
  /\ After(row[p], name) # None
  /\ Burns(row[p].state, name) /\ name # "Unshare" => row[p].version < VersionsMax

Ask(c, p, name, frame) ==
  /\ MayAsk(p, name)
  /\ IF TakesReplica(row[p], name) /\ ReplicasTaken = Cardinality(Replicas)
     THEN UNCHANGED vars
     ELSE Decide(c, p, name, frame)

Begin ==
  /\ Busy # CPUs
  /\ LET c == CHOOSE c \in CPUs \ Busy : \A d \in CPUs \ Busy : c <= d IN
     \E p \in Pages, name \in Asks :
       IF name \in {"PageIn", "Accept"}
       THEN \E f \in Frames :
              owner[f] = Offered(p) /\ Ask(c, p, name, f)
       ELSE Ask(c, p, name, None)

-----------------------------------------------------------------------------
(* Act, commit, drop. *)

(* What the checker knows once a page is let go. *)
Settled(k, state) ==
  [latest    |-> IF state = "Free" THEN Zero ELSE k.latest,
   consent   |-> IF state = "Open" THEN k.consent ELSE None,
   reclaimed |-> k.reclaimed]

(* What nobody will fetch any more is forgotten. *)
Handed(h, p, state) ==
  IF state \in {"PagedOut", "Sealed"} THEN h ELSE [h EXCEPT !.handed[p] = Public]

LetGo(c, p, r, k) ==
  /\ batch' = [batch EXCEPT ![c] = Idle]
  /\ row' = [row EXCEPT ![p] = r]
  /\ known' = [known EXCEPT ![p] = Settled(k, r.state)]
  /\ host' = Handed(host, p, r.state)

(* Closed for good, with its frame and its VM. *)
Poison(c) ==
  LET b == batch[c]
      p == b.page
      f == Frame(p, b.frame)
  IN
  /\ LetGo(c, p,
       [row[p] EXCEPT
          !.state = "Poisoned", !.terms = None, !.frame = f, !.tag = NoSeal,
          !.owes = @ \/ row[p].state = "Replica" \/ b.reserved],
       known[p])
  /\ owner' = [owner EXCEPT ![f] = IF @ = Owned(p) THEN Quarantined(p) ELSE @]
  /\ stopped' = TRUE

Commit(c) ==
  LET b == batch[c]
      p == b.page
      r == row[p]
      hasFrame == b.after \notin {"Free", "PagedOut"}
  IN
  /\ LetGo(c, p,
       [state   |-> b.after,
        terms   |-> IF Opening(b.name) THEN OpenTo(b.name)
                    ELSE IF b.after = "Open" THEN r.terms ELSE None,
        frame   |-> IF hasFrame THEN Frame(p, b.frame) ELSE None,
        version |-> IF Mutant = "forgets-version" /\ ~hasFrame
                    THEN 0 ELSE r.version,
        tag     |-> IF b.after \in {"Sealed", "PagedOut"} THEN b.tag ELSE NoSeal,
        owes    |-> FALSE],
       [known[p] EXCEPT
          !.reclaimed = (@ \/ b.name = "Unshare") /\ b.after # "Free"])
  /\ owner' = IF hasFrame \/ r.frame = None THEN owner
              ELSE [owner EXCEPT ![r.frame] = Free]
  /\ UNCHANGED stopped

Step(c) ==
  /\ batch[c] # Idle
  /\ UNCHANGED used
  /\ LET b == batch[c]
         p == b.page
         f == Frame(p, b.frame)
     IN
     IF b.todo = <<>>
     THEN IF b.forged THEN Poison(c) ELSE Commit(c)
     ELSE LET step   == Head(b.todo)
              forged == step = Open /\ ~Genuine(host.memory[f], p, row[p])
          IN
          /\ host' = Called(host, p, f, row[p], step)
          /\ batch' = [batch EXCEPT ![c] =
               [b EXCEPT
                  \* A page that is not genuine is granted to nobody.
                  !.todo = IF forged THEN <<>> ELSE Tail(b.todo),
                  !.begun = TRUE,
                  !.forged = forged,
                  !.tag = IF step[1] = "seal" /\ step[3] = "Resident"
                          THEN SealOf(host, p, f, row[p], "Resident") ELSE @]]
          /\ UNCHANGED <<row, owner, stopped, known>>

Drop(c) ==
  /\ batch[c] # Idle
  /\ used.drops < DropsMax
  /\ used' = [used EXCEPT !.drops = @ + 1]
  /\ LET b == batch[c] IN
     IF b.begun THEN Poison(c)
     ELSE /\ LetGo(c, b.page, row[b.page], known[b.page])
          /\ owner' = IF b.frame = None THEN owner
                      ELSE [owner EXCEPT ![b.frame] = Offered(b.page)]
          /\ UNCHANGED stopped

-----------------------------------------------------------------------------
(* Guests: what the CPU remembers goes before what the table says. *)

GuestFinds(p) ==
  IF host.tlb.guest[p] # None THEN host.tlb.guest[p] ELSE host.guestTable[p]

GuestLoad(p) ==
  /\ Runs
  /\ host.tlb.guest[p] = None /\ host.guestTable[p] # None
  /\ host' = [host EXCEPT !.tlb.guest[p] = GuestFinds(p)]
  /\ UNCHANGED <<row, owner, batch, stopped, known, used>>

GuestStore(p) ==
  /\ Runs
  /\ GuestFinds(p) # None
  /\ used.stores < StoresMax
  /\ LET bytes == IF known[p].consent = None
                  THEN Secret(used.stores) ELSE Shared(used.stores)
     IN
     /\ host' = [host EXCEPT !.tlb.guest[p] = GuestFinds(p),
                             !.memory[GuestFinds(p)] = bytes]
     /\ known' = [known EXCEPT ![p].latest = bytes]
  /\ used' = [used EXCEPT !.stores = @ + 1]
  /\ UNCHANGED <<row, owner, batch, stopped>>

-----------------------------------------------------------------------------
(* The management side. *)

HostFinds(place) ==
  IF host.tlb.host[place] # None
  THEN host.tlb.host[place] ELSE host.hostTable[place]

ManageLoad(place) ==
  /\ host.tlb.host[place] = None /\ host.hostTable[place] # None
  /\ host' = [host EXCEPT !.tlb.host[place] = HostFinds(place)]
  /\ UNCHANGED <<row, owner, batch, stopped, known, used>>

(* To write what is there already makes no difference to anybody. *)
ManageStore(place) ==
  /\ HostFinds(place) = "ReadWrite"
  /\ host.memory[place] # Public
  /\ host' = [host EXCEPT !.tlb.host[place] = "ReadWrite",
                          !.memory[place] = Public]
  /\ known' = [p \in Pages |->
       IF /\ place \in Frames /\ owner[place] = Owned(p)
          /\ known[p].consent = "ReadWrite"
       THEN [known[p] EXCEPT !.latest = Public] ELSE known[p]]
  /\ UNCHANGED <<row, owner, batch, stopped, used>>

Offer(f, p) ==
  /\ owner[f] = Free
  /\ Shown(p) \in {"Free", "PagedOut"}
  /\ owner' = [owner EXCEPT ![f] = Offered(p)]
  /\ UNCHANGED <<row, batch, stopped, host, known, used>>

Retract(f) ==
  /\ owner[f].role = "offered"
  /\ owner' = [owner EXCEPT ![f] = Free]
  /\ UNCHANGED <<row, batch, stopped, host, known, used>>

ManageMap(f) ==
  /\ Raw
  /\ owner[f].role = "offered"
  /\ host.hostTable[f] = None
  /\ host' = [host EXCEPT !.hostTable[f] = "ReadWrite"]
  /\ UNCHANGED <<row, owner, batch, stopped, known, used>>

(* Whatever it was ever given it can hand over for a page that is out, or  *)
(* bytes of its own making.                                                *)
Hand(p) ==
  /\ Shown(p) = "PagedOut"
  /\ \E bytes \in {Public} \cup {Sealed(seal) : seal \in host.seals} :
       /\ bytes # host.handed[p]
       /\ host' = [host EXCEPT !.handed[p] = bytes]
  /\ UNCHANGED <<row, owner, batch, stopped, known, used>>

Next ==
  \/ Begin
  \/ \E c \in CPUs : Step(c) \/ Drop(c)
  \/ \E p \in Pages : GuestLoad(p) \/ GuestStore(p) \/ Hand(p)
  \/ \E place \in Places : ManageLoad(place) \/ ManageStore(place)
  \/ \E f \in Frames : Retract(f) \/ ManageMap(f) \/ \E p \in Pages : Offer(f, p)

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
(* What must hold: rows of invariants.md. *)

HostReaches(place) == HostFinds(place) # None

GuestReaches(p) == {host.tlb.guest[p], host.guestTable[p]} \ {None}

Quiet(p) == Shown(p) \in {"Private", "Replica"}

(* No place that the management side reaches holds what was stored in      *)
(* private.                                                                *)
C1 == \A place \in Places :
        HostReaches(place) => host.memory[place].what # "secret"

(* While a page is Private or Replica, the management side does not reach  *)
(* its frame.                                                              *)
C2 == \A p \in Pages : Quiet(p) => ~HostReaches(row[p].frame)

(* Where an owner can store to a page that it has closed again, the        *)
(* management side has no translation to it.                               *)
C3 == \A p \in Pages :
        Runs /\ known[p].reclaimed /\ known[p].consent = None
             /\ GuestFinds(p) # None
          => ~HostReaches(GuestFinds(p))

(* A page is Open only while its owner's own act says so. *)
C4 == \A p \in Pages :
        Shown(p) = "Open" => known[p].consent \in {row[p].terms, "ReadWrite"}

(* Two seals with the same associated data hold the same bytes. *)
C6 == \A s, t \in host.seals :
        [s EXCEPT !.inner = Zero] = [t EXCEPT !.inner = Zero] => s = t

(* A guest that runs finds in its page what it stored last, or what the    *)
(* management side wrote while it was allowed to.                          *)
I1 == Runs => \A p \in Pages : \A f \in GuestReaches(p) :
        host.memory[f] = known[p].latest

(* Every page that has a frame owns it, and a guest reaches no other. *)
I3 == \A p \in Pages :
        /\ Held(p) \/ row[p].frame = None
           \/ owner[row[p].frame] =
                (IF row[p].state = "Poisoned" THEN Quarantined(p) ELSE Owned(p))
        /\ Runs => \A f \in GuestReaches(p) : owner[f] = Owned(p)

(* While a page is Private or Replica, its frame holds what its owner      *)
(* stored last.                                                            *)
I5 == \A p \in Pages : Quiet(p) => host.memory[row[p].frame] = known[p].latest

(* No two seals of a page are made under one version. *)
F2 == \A s, t \in host.seals :
        s.page = t.page /\ s.version = t.version => s = t

(* What is opened as genuine has exactly the version that the page's row   *)
(* names.                                                                  *)
F1 == [][\A c \in CPUs :
           /\ batch[c] # Idle /\ batch'[c] # Idle
           /\ batch[c].todo # <<>> /\ Head(batch[c].todo) = Open
           /\ ~batch'[c].forged /\ batch'[c] # batch[c]
           => LET b == batch[c] IN
              host.memory[Frame(b.page, b.frame)].seal.version
                = row[b.page].version]_vars

(* F2 again: a page's version never decreases. *)
Counts == [][\A p \in Pages : row'[p].version >= row[p].version]_vars

(* What was poisoned stays so, with its frame and its VM. *)
S3 == [][\A p \in Pages : row[p].state = "Poisoned" =>
           row'[p].state = "Poisoned" /\ stopped'
           /\ owner'[row[p].frame] = Quarantined(p)]_vars
=============================================================================
