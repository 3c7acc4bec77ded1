"""Nouns that a detector cannot box, and why. Lemmas, lower case; a person can read and mend the lists."""

from __future__ import annotations

import re


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# After GRIT's "time, love, freedom": what no picture shows as a thing.
ABSTRACT = words(
    """
    ability access accident accommodation action activity ad addition advance advantage adventure advertising advice
    advisor affair age agency agreement aim alert allegation allure alpha alternative am amateur amount analysis
    anatomy anger angle anniversary announcement answer anthology anxiety approach april architecture arrangement
    arrival art article aspect assessment association attack attempt attention attitude auction audio august author
    autumn availability average award back balance bargain base bash basic basics battle beauty beginner beginning
    behavior behaviour belief benefit binding biography birth birthday bit blank blast blend blog bonus brand break
    breakdown browser bundle business call calm campaign carat care career cause celebration century challenge
    championship championships chance change channel chaos chapter character charity charm cheat check chemistry chill
    choice christmas chunk class classic classics cleaning clearance clip closeout cm co code collectible collection
    combination comeback comfort comment communication community company comparison compatibility competition
    computing concept concern condition conference confidence congratulation connection consequence construction
    consultation contact content contest context control copy core cost count coupon courage course coverage craft
    creation creativity credit criterion cruelty culture custom customization cycling damage danger darkness data date
    datum day deal death debate decade december decision declaration decor default defense definition degree delivery
    demand demo dentistry department dependency depth description desire detail development difference difficulty
    direction disability discount discussion disease distance dive diving division do documentation doom downtown
    draft dream drive duty ease easter economy edition education effect efficiency effort election electricity
    elegance element elevation emotion empire end energy engagement engineering enterprise entertainment entry
    environment episode equation era error essay essence essential essentials estate eternity ethic ethics evening
    event evidence evolution exam example excerpt exchange excitement exercise expansion experience experiment expert
    explanation expo export expression extension extent facility fact factor failure fairness faith fall fame fantasy
    farming fashion fate favor favorite fear feature february feeling festival fiction fight final finance finish fit
    fitness focal focus force form foundation founding freedom friday friendship fun function fusion future galaxy
    game gap gardening gauge gb gender generation genius gesture giveaway glory goal good government grace grade grief
    growth guarantee guide guideline guilt habit half halloween handling happiness hate haul header heading health
    heat heaven height hello help heritage hire history holiday honor honour hope hour hp html humor humour hunt
    hunting hype idea identity ii iii imagination impact importance improvement inc inch income increase industry
    influence info information infrastructure initiative injury innovation insight inspiration install installation
    instruction insulation insurance intelligence interest internet interview introduction invention inventory
    investigation investment invite irrigation issue item iv january job joke journey joy july jumpstart june justice
    kb keyword kind kindness km knowledge land landing language launch law layer lb leadership league learning legacy
    legend length lesson level liability liberty licence license life lifetime lining link list literature living
    local location logic look loss lot love luck luxury lyric lyrics magic mainland maintenance management managing
    manner manufacturing marc march marketing mashup mass match material math mathematics matter max may mean meaning
    measure medicine medium meeting membership memorabilia memory message method mi midnight min mind mini minute
    miracle miss mission mistake mix ml mm modal mode modern moment monday money month mood morning motion movement mp
    music mystery na name nature need networking news night nightmare noise nomination none noon note november number
    nutrition obsession occasion oct october offer offering one op open operation opinion opportunity option order
    organisation organization orgy origin original outdoor outlet outlook overview pace pain parking part partnership
    passion past patience pay payment peace percent performance period permission permit personality perspective phase
    philosophy physics piece place plan planning play pleasure plot point policy politics poll pollution pop pose
    position possibility potential poverty power practice preparation presence present presentation pressure
    prevention price pricing pride primary principle privacy pro problem procedure process product production profit
    program programme progress project promise promo promotion proof property protection psychology purchase purpose
    pursuit quality quantity quarter question quote race racing rally range rate rating reading reality reason
    rebellion recap reception recipe recognition recommendation recovery recruitment redemption reduction reference
    reflection refuge region relation relationship release relevance relief religion remedy renovation rent rental
    replacement report reputation request rescue research reservation resistance resonance resource respect response
    responsibility rest result return reunion revenue review revolution ride right risk role rom romance round rule
    rumor rumour run rush sadness safety saga sale sample satisfaction saturday save saving savings scale schedule
    science score script search season seating second secret section security self sensation sense sentence september
    series service session shape shipping shootout shopping shortage show sight sightseeing silence simplicity site
    situation size skill sleep software solution song sorrow sort soul source space spec specie species specification
    specs spectacle speech speed spirit split sport spotlight spring stage standard start state statement statistics
    stats status step stock stop storage story strategy strength stress struggle study stuff style submission
    subscription success suggestion summary summer sunday supplement supply support surgery surprise survey survival
    swimming synthesis system tag tags takeover tale talent talk target task taste teaching tech technique technology
    temperature tempo tension term terms terrorism test text thank thanks theft theme theory therapy thickness thing
    thought thursday time tip title tm today tomorrow tonight topic total tour tournament trade trademark tradition
    traffic trailer training transfer transition translation transport transportation travel treatment trend trilogy
    trip trivia trouble trust truth tuesday tutorial two type unit unity up update upgrade usage use vacation value
    variant variety verse version vice victory view viewer violence virtue vision visit voice volume vote waist wait
    wake walk walking war warfare warranty waterproof way wealth weather web webinar website wednesday week weekend
    weight wellness wholesale width will wind winter wisdom wish wit wonder word work workout workshop world worship
    worth wrath writing xl xx xxl year years yesterday youth zone
    """
)

# Most nouns with these endings are abstract, too; the others are listed.
ABSTRACT_ENDING = re.compile(r"\w{2,}(?:ness|ity|ism|tion|sion|ology|hood)")
CONCRETE = words(
    """
    attraction baroness carnation celebrity childhood city cushion decoration deity eyewitness fortification governess
    harness hood invitation junction lioness lotion mansion neighborhood neighbourhood organism partition plantation
    playstation potion prism station substation television university vegetation vicinity wilderness witness workstation
    """
)

# After a number these measure; alone they may be things ("a pack of dogs" is told by its "of").
UNIT = words(
    """
    bay carat count foot gallon grade gram grams gsm inch karat kg kilogram lb length liter litre meter metre mile
    milliliter mm month ounce oz pack page part pc pcs percent piece pk pound ply quart set size story ton watt yard
    """
)

# What a caption calls the picture itself, or a part of its frame: never the subject in it.
PICTURE = words(
    """
    angle art artwork backdrop background banner bottom caption cartoon center centre close closeup collage color
    colour composition copyspace corner design detail diagram dots download drawing edge emoji exterior flatlay font
    footage foreground format frame front gif graphic icon illustration image images interior jpeg jpg landscape left
    logo macro middle mockup outline painting palette pattern photo photograph photographer photography photos
    photoshoot pic picture pictures pixel png portrait poster preview print rear render rendering resolution right
    scene screenshot seamless shot side silhouette sketch snapshot stock stripes style surface template texture
    thumbnail tone top vector video view wallpaper watercolor watercolour watermark
    """
)

# What stands between a thing and such a word in titles.
STOCK = words("free royalty stock clip hd set sets series collection")

# "a pair of boots" shows boots.
PARTITIVE = words(
    """
    array assortment bit bunch couple dozen flock group handful heap herd hundred kind lot number pack pair piece pile
    plenty row scattering selection series set sort stack swarm thousand trio type variety
    """
)

# spaCy entity types whose mention is no box: names of people are left out on purpose.
NAMED = words("CARDINAL DATE EVENT FAC GPE LANGUAGE LAW LOC MONEY NORP ORDINAL ORG PERCENT PERSON QUANTITY TIME")

# Taggers take these for nouns in "a teal and gray bicycle".
COLOUR = words(
    """
    amber aqua azure beige black blue bronze brown charcoal coral cream crimson cyan dark fuchsia gold golden gray
    green grey indigo ivory khaki lavender light lilac lime magenta maroon mauve mint multicolor multicolored navy
    neon olive orange pale pastel peach pink purple red rose sepia silver tan taupe teal turquoise violet white yellow
    """
)
# Modifiers that stand before a noun, whatever the tagger makes of them.
RENDERING = words(
    """
    2d 3d art big cartoon clip detailed fashioned flat glossy gradient huge large little minimal old oncoming plain
    rendered retro shaded simple small tiny vector vintage
    """
)
# Colours that are things as well when they stand as a head: "ice cream", "an olive".
COLOURED_THING = words("amber coral cream fuchsia gold lavender light lime mint olive orange peach rose silver violet")

# What a thing may be "in": "ankle boots in black suede".
MATERIAL = words(
    """
    aluminium aluminum bamboo brass bronze canvas cashmere ceramic chrome copper corduroy cotton crystal denim enamel
    fabric faux felt fleece fur glass gold iron jersey lace leather linen mahogany marble mesh metal nylon oak pewter
    pine plastic platinum polyester porcelain rubber satin silicone silk silver stainless steel stone suede titanium
    tweed velvet walnut wax wood wool
    """
)

# Where a subject is: refused after a preposition of place ("a fox on a beach"), wanted elsewhere ("beach with palms").
SETTING = words(
    """
    air area beach building city coast countryside dark dawn desert dusk evening field floor forest garden grass
    ground hill hillside horizon meadow night nighttime ocean outdoors park path pavement road room sand sea seaside
    shore sky skyline snow star street sunlight sunrise sunset surface town village wall water wood woods yard
    """
)
PLACE_WORDS = words("against at behind by in inside near on over through under")

# Nouns younger than WordNet's list, by which other words are told from brands, names and product codes.
MODERN = words(
    """
    airbag airpods blazer bokeh bralette bullseye clipart crossbody doggo earbud earbuds flatbread flatlay hashtag
    hoodie hoodies ipad iphone jumpsuit keychain keyring lanyard longboard macaron makerspace moodboard oclock onesie
    powerbank quad romper selfie selfies skort smartphone smartwatch snapback snowboard sudoku sweatshirt t-rex tee
    tees tshirt usb webcam
    """
)

# Their singular is another word, or none.
PLURAL_ONLY = words(
    """
    binoculars clothes glasses goggles jeans leggings overalls pajamas pants pliers pyjamas scissors shorts sunglasses
    tights tongs trousers tweezers
    """
)

# Proper names that WordNet's index has in lower case: in a Title Case caption nothing else tells them.
NAMES = words(
    """
    adam africa alabama alaska albert alexander america anderson andrew angeles anna arizona arkansas arthur asia
    atlanta austin australia austria az barcelona belgium berlin boston brazil britain brooklyn brooks burton ca
    california cameron campbell canada carolina carter cc cf charles chicago china clark cleveland clinton co colorado
    columbia connecticut ct cv dakota dallas david davis delaware denver detroit disney diy douglas dr dubai dublin
    ebay edward egypt elizabeth ellis england english europe evans faq fl florence florida france frank garner gates
    george georgia germany gm google gp graham greece hamilton harrison harvard hawaii hayes henry hollywood hong
    houston illinois india indiana iowa iran iraq ireland israel italy jackson jacob james japan jersey jesus jim joan
    joe john johnson jones joseph jr kansas kelly kennedy kentucky kenya khan korea las lawrence lee leonard lewis
    lincoln liverpool london louis louisiana lucas ma madison madonna madrid manchester maryland massachusetts mexico
    miami michael michigan middleton miller milwaukee minneapolis minnesota mississippi missouri mitchell mls monet
    montana montgomery moscow mr mrs mumbai murray nc ne nebraska nelson nevada newton niagara nicholas nigeria norway
    nsw nyse oakland obama ohio ok oklahoma ontario oregon orlando oxford pakistan paris parker pc pennsylvania perth
    peter philadelphia philippine phoenix pittsburgh poland portland portugal princeton richard robert robinson
    rodgers rome russell russia sam samson san sc scotland scott seattle shanghai shelley simpson singapore smith
    sofia spain sr st stephen sue sweden switzerland sydney taylor tennessee texas thomas tm tokyo toronto trump
    turner tx uk ukraine un us usa utah va vancouver venice vermont vernon victoria vietnam vip virginia wales walter
    washington wayne wellington wifi william williams wilmington wilson windows wisconsin wright wyoming york zealand
    """
)
