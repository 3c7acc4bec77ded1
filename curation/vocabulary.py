"""Nouns that a detector cannot box, and why. Lemmas, lower case; a person can read and mend the lists."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# After GRIT's "time, love, freedom": what no picture shows as a thing.
ABSTRACT = words(
    """
    ability accident action activity advantage adventure advice age agreement aim amount anger answer anxiety
    approach art aspect attempt attention attitude availability award beauty beginning behavior behaviour belief
    benefit birth business care career case cause century challenge chance change chaos character charm choice
    class collection comfort comment communication community comparison competition concept concern condition
    confidence connection consequence contact content context control cost country courage course creativity
    culture custom damage danger darkness date day deal death debate decade decision deck definition degree
    delivery demand dependency depth description desire detail development difference difficulty direction
    discount discussion disease distance dream duty ease economy edition education effect effort election emotion
    energy episode error essence event evening evidence example exchange excitement experience explanation
    extent fact failure faith fall fame fashion fate fear feature feeling fight finance focus force form
    freedom friendship fun function future game glory goal good grief growth guide guilt habit happiness hate
    health heat help history holiday home hope hour humor humour idea identity imagination impact importance
    improvement income increase industry influence information injury innovation insight inspiration intelligence
    interest interview introduction investment issue job journey joy justice kind kindness knowledge language law
    layer leadership learning lesson level liberty life lifetime list logic loss lot love luck luxury magic
    manner marketing matter mean meaning measure meeting memory message method midnight mind minute moment money
    mood month morning motion mystery name nature need news night noise none noon number occasion offer
    opinion opportunity option order origin pain part passion past patience peace performance period permission
    perspective phase philosophy piece place plan pleasure point policy politics position possibility potential
    poverty power practice presence present price pride principle privacy problem process production profit
    program programme progress project promise proof property protection purpose quality quantity question rate
    reality reason recipe recovery reference region relation relationship release relevance religion report
    reputation request rescue research respect response responsibility rest result review right risk role
    romance round rule safety sale sadness satisfaction season second secret security sense series service
    session shipping silence simplicity situation size skill sleep solution sorrow sort source space speech
    speed spirit sport stage start state status step stock story strategy strength stress study stuff style
    success suggestion summer summary support surprise system talent task taste technique technology tension
    term theme theory thing thought time tip today tomorrow tonight topic total tour tradition training travel
    trend trip trouble trust truth type unity update usage use vacation value variety version victory view
    violence vision visit volume wait war warranty way wealth week weekend weight width will winter wisdom
    wish wonder word work world worth year yesterday youth
    autumn spring heaven height length hello thank thanks sunday monday tuesday wednesday thursday friday saturday
    january february march april may june july august september october november december
    """
)

# What a caption calls the picture itself, or a part of its frame: never the subject in it.
PICTURE = words(
    """
    angle art artwork backdrop background banner bottom caption cartoon center centre close closeup color colour
    composition copyspace corner design detail download drawing edge emoji flatlay font foreground format frame
    front gif graphic icon illustration image jpeg jpg landscape left logo macro middle mockup outline painting
    palette pattern photo photograph photographer photography photoshoot pic picture pixel png portrait poster
    preview print rear render rendering resolution right scene screenshot seamless shot side silhouette sketch
    snapshot stock style surface template texture thumbnail tone top vector video view wallpaper watermark
    watercolor watercolour
    """
)

# "a pair of boots" shows boots.
PARTITIVE = words(
    """
    array assortment bit bunch couple dozen flock group handful heap herd hundred kind lot number pack pair piece
    pile plenty row scattering selection series set sort stack swarm thousand trio type variety
    """
)

# spaCy entity types whose mention is no box: names of people are left out on purpose.
NAMED = words("CARDINAL DATE EVENT FAC GPE LANGUAGE LAW LOC MONEY NORP ORDINAL ORG PERCENT PERSON QUANTITY TIME")

# Taggers take these for nouns in "a teal and gray bicycle".
COLOUR = words(
    """
    amber aqua azure beige black blue bronze brown charcoal coral cream crimson cyan dark fuchsia gold golden gray
    green grey indigo ivory khaki lavender light lilac lime magenta maroon mauve mint multicolor multicolored navy
    neon olive orange pale pastel peach pink purple red rose sepia silver tan taupe teal turquoise violet white
    yellow
    """
)
# Modifiers that may stand between a determiner and a colour, whatever the tagger makes of them.
RENDERING = words("3d 2d rendered vector cartoon flat gradient retro vintage")
# Colours that are things as well when they stand as a head: "ice cream", "an olive".
COLOURED_THING = words("amber coral cream fuchsia gold lavender light lime mint olive orange peach rose silver violet")
