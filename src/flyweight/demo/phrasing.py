"""What operators say: clause templates, and how each fault, remark and question is worded.

`{A}` is the machine that the order is about, `{B}` another one. A fault has noun phrases
(`{np}`: "an oil leak") and predicates (`{vp}`: "is dripping"). A *phrasing group* is one
combination of core sentence, remark about another machine, and order of the clauses.
"""

from __future__ import annotations

FAULT_NOUNS = {
    "leak": ("a leak", "an oil leak", "a puddle underneath", "fluid on the floor",
             "a dripping seal", "a wet flange", "coolant coming out"),
    "vibration": ("strong vibration", "a lot of shaking", "a wobble", "heavy vibration",
                  "shaking in the frame", "an unbalanced rotor", "a tremor at full speed"),
    "noise": ("a grinding noise", "a loud squeal", "strange sounds", "a knocking sound",
              "a high pitched whine", "a rattle", "a loud humming"),
    "overheat": ("a hot bearing", "overheating", "too much heat", "a heat alarm",
                 "a thermal warning", "a housing too hot to touch", "high temperature"),
    "jam": ("a jam", "a blockage", "material stuck inside", "a box stuck in it",
            "a clogged inlet", "a pile up", "product wedged in the guide"),
    "power": ("no power", "a dead panel", "a tripped breaker", "a blown fuse",
              "power cuts", "a dark display", "an electrical fault"),
    "pressure": ("low pressure", "a pressure drop", "weak pressure", "a pressure loss",
                 "not enough pressure", "falling pressure", "a low pressure alarm"),
    "smoke": ("smoke", "a burning smell", "smoke coming out", "a smell of burnt rubber",
              "grey smoke at the back", "something smouldering", "fumes from the cabinet"),
    "wear": ("a worn belt", "worn teeth", "a frayed cable", "a cracked guard",
             "bad wear on the rollers", "a worn out coupling", "thin brake pads"),
    "misaligned": ("a misaligned shaft", "a crooked guide", "bad alignment", "an offset track",
                   "a tilted head", "parts coming out off centre", "a shifted frame"),
    "sensor": ("a faulty sensor", "wrong readings", "a frozen gauge", "a sensor error",
               "a display stuck at zero", "jumping values", "a dead probe"),
    "dry": ("a dry bearing", "no grease left", "a lack of oil", "low lubricant",
            "an empty oiler", "a dry chain", "an oil level below the mark"),
}  # fmt: skip

FAULT_PREDICATES = {
    "leak": ("is leaking", "drips oil", "is losing fluid", "leaks from the seal",
             "is spraying coolant", "leaves a puddle", "is wet all around the flange"),
    "vibration": ("is vibrating badly", "shakes like crazy", "wobbles", "is shaking the floor",
                  "trembles at full speed", "runs out of balance", "will not stop shaking"),
    "noise": ("is squealing", "makes a grinding noise", "sounds terrible", "is rattling",
              "knocks when it turns", "whines all the time", "is louder than usual"),
    "overheat": ("is overheating", "runs hot", "gets too hot", "is hot to the touch",
                 "shows a heat alarm", "is way too warm", "is boiling hot"),
    "jam": ("is jammed", "is blocked", "got stuck", "is clogged", "keeps jamming",
            "has swallowed a box", "will not feed any more"),
    "power": ("has no power", "is dead", "will not switch on", "lost power",
              "keeps tripping the breaker", "blew a fuse", "does not power up"),
    "pressure": ("is losing pressure", "has low pressure", "cannot hold pressure",
                 "shows a pressure drop", "does not build pressure", "is down on pressure",
                 "has weak pressure"),
    "smoke": ("is smoking", "smells burnt", "is giving off smoke", "smells like burning rubber",
              "is smouldering", "lets out grey smoke", "stinks of burnt plastic"),
    "wear": ("is worn out", "has a frayed belt", "has worn teeth", "shows bad wear",
             "has a cracked guard", "is worn down to the metal", "needs new rollers"),
    "misaligned": ("is out of line", "is misaligned", "runs crooked", "is off centre",
                   "pulls to one side", "has shifted on its base", "tracks to the left"),
    "sensor": ("gives wrong readings", "has a dead sensor", "shows nonsense values",
               "has a frozen gauge", "reports a sensor error", "reads zero all the time",
               "shows jumping values"),
    "dry": ("is running dry", "needs grease", "is low on oil", "has a dry bearing",
            "has run out of lubricant", "has an empty oiler", "has not been greased"),
}  # fmt: skip

CORES = (
    "{A} {vp}", "{A} {vp} again", "looks like {A} {vp}", "just noticed that {A} {vp}",
    "{A} {vp} since {when}", "since {when} {A} {vp}", "the operator says {A} {vp}",
    "please come to {where}, {A} {vp}", "I think {A} {vp}", "we see that {A} {vp}",
    "{A} in {where} {vp}", "in {where} {A} {vp}", "listen, {A} {vp}", "problem here: {A} {vp}",
    "{A} started up and now it {vp}", "pretty sure {A} {vp}", "after the break {A} {vp}",
    "{who} told me {A} {vp}", "when I opened {A} I saw that it {vp}", "well, {A} {vp}",
    "there is {np} on {A}", "we have {np} at {A}", "{np} on {A}", "{A} has {np}",
    "got {np} at {A}", "found {np} on {A} during the round", "reporting {np}, {A}",
    "{A}: {np}", "can someone look at {A}, {np}", "{np} at {A} in {where}",
    "{who} found {np} on {A}", "I want to report {np} on {A}", "we got {np} since {when}, {A}",
    "new ticket for {A}, {np}", "{A} again with {np}", "need help with {A}, it has {np}",
    "once more {np} on {A}", "it is {A}, {np}", "saw {np} when passing {A}",
    "maintenance for {A} please, {np}",
)  # fmt: skip

# How the severity is said when no reading says it. Nothing said means medium.
SEVERITY_CUES = {
    "low": ("it still runs fine", "no rush", "not urgent", "it can wait until the weekend",
            "production is not affected", "only a little", "just so you know",
            "whenever you have time", "barely noticeable", "next service is soon enough"),
    "medium": ("it should be looked at this shift", "we had to slow down", "running at half speed",
               "please check it today", "it is getting worse", "we lose some output",
               "it needs a look before tonight", "quality is suffering", "comes and goes"),
    "high": ("the line is down", "we had to stop", "somebody could get hurt", "it is an emergency",
             "come right now", "everything is standing still", "this is dangerous",
             "production stopped", "urgent", "people had to leave the area"),
}  # fmt: skip

READINGS = {
    "overheat": ("bearing is at {v}", "it shows {v}", "temperature reads {v}", "measured {v}",
                 "we are at {v} now", "housing at {v}"),
    "vibration": ("vibration reads {v}", "it shows {v}", "measured {v}", "we are at {v} now",
                  "the meter says {v}"),
    "pressure": ("gauge shows {v}", "we are at {v} now", "it only gives {v}", "measured {v}",
                 "pressure reads {v}"),
}  # fmt: skip

TRIED = (
    "we already reset it twice", "tried everything already", "we did the usual steps without luck",
    "second time after our own repair", "restarting did not help",
    "the quick fix from yesterday did not hold", "our own repair failed",
)  # fmt: skip

# Remarks about another machine: none of them asks for a work order. Most give it a fault and a
# severity ({say2}: a cue or a reading) in the very words that an order would use, so that only
# the whole sentence tells which machine, fault and severity are meant.
REMARKS = (
    "nothing wrong with {B}", "we moved the load to {B}",
    "unlike {B} which {vp2} and was written up as {say2}",
    "the open ticket is for {B}, it says {np2} and {say2}",
    "{who} is at {B} already, that ticket says {np2} and {say2}",
    "yesterday it was {B}, then we had {np2} and {say2}",
    "do not mix it up with {B}, that one {vp2} and {say2}",
    "{who} has written up {B}. the note says it {vp2} and {say2}",
    "the other crew has {B}, their note says {say2} and {np2}",
    "ignore the old note about {B}. it said {np2} and {say2}",
    "the list from yesterday has {B}. it says {say2} and {np2}",
    "this is not about {B}, there they reported {np2} and {say2}",
)  # fmt: skip

# No order: questions, things that are over, things that are only imagined.
NO_ORDER = (
    "what should I do when {A} {vp}", "who takes care of {A}", "is there a manual for {A}",
    "{A} is running fine again", "the {bare} on {A} is fixed, thanks", "no {bare} on {A} today",
    "when is the next service for {A}", "{A} had {np} last month, all good since",
    "how often do you check {A} for {bare}", "what is the limit on {A}",
    "just testing the mic, {A} is ok", "can {A} get {np} at all",
    "false alarm on {A}, please ignore it", "please close the ticket for {A}, it is solved",
    "did anyone repair {A} yet", "how many hours does {A} have", "where do I find {A}",
    "if {A} {vp} some day, whom do I call", "{who} repaired {A}, {np} is gone",
    "why do people say {A} {vp}", "training question: {A} {vp}, what comes first",
    "we checked {A} for {bare} and found nothing", "{A} passed the inspection",
    "is it normal that {A} warms up", "what does {bare} mean on {A}",
)  # fmt: skip

BARE = {
    "leak": "leak", "vibration": "vibration", "noise": "noise", "overheat": "overheating",
    "jam": "jam", "power": "power loss", "pressure": "pressure loss", "smoke": "smoke",
    "wear": "wear", "misaligned": "misalignment", "sensor": "sensor error", "dry": "dry bearing",
}  # fmt: skip

OPENERS = (
    "hey", "hello", "good morning", "maintenance please", "hi there", "this is {who}",
    "{who} here", "shift {shift} here", "ok so", "quick one", "attention", "morning team",
    "calling from {where}", "um", "listen up",
)  # fmt: skip

CHATTER = (
    "the coffee machine is empty again by the way", "hope you had a good weekend",
    "{who} is on break until {hour}", "we have visitors at {hour}", "lunch is at {hour} today",
    "the forklift is parked in {where}", "my badge does not open the door to {where}",
    "we made {count} parts so far", "{count} pallets are waiting for the truck",
    "the order for {who} is ready", "it is cold in {where}", "the radio is bad today",
    "sorry for the noise around me", "I will be back at {hour}", "tell {who} I said hello",
    "the new guy started in shift {shift}", "we are {count} pieces behind plan",
    "the floor was cleaned at {hour}", "remember the meeting at {hour}",
    "shift {shift} left the lights on",
)  # fmt: skip

WHEN = ("this morning", "last night", "yesterday", "the start of the shift", "monday",
        "an hour ago", "the last restart", "noon")  # fmt: skip
WHERE = ("hall 2", "hall 3", "packaging", "the paint shop", "the warehouse", "line 4", "line 7",
         "the foundry", "bay 5", "assembly")  # fmt: skip
WHO = ("Dana", "Luis", "Mei", "Tom", "Priya", "Ahmed", "Olga", "Ben", "Rosa", "Jonas")

TENS = ("", "", "twenty", "thirty", "forty")
ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
        "eighteen", "nineteen")  # fmt: skip


def number_words(number: int) -> str:
    """English words for 0 to 49: 23 is "twenty three"."""
    if number < 20:
        return ONES[number]
    tens, ones = divmod(number, 10)
    return TENS[tens] if ones == 0 else f"{TENS[tens]} {ONES[ones]}"
