"""The words that the pictures show: common short English words, some of them never shown in training, and letter strings.

A model that has only learned which words exist can guess; one that reads cannot be told apart from it on known words.
Hence two precautions: one word in eight is held out by a fixed rule, and half of the words shown in training are
random letters, so that the letters have to be read one by one.
"""

import random
import zlib
from collections.abc import Sequence

_COMMON = """
ace act add age aid aim air ale all and ant any ape arc arm art ash ask ate axe bad bag ban bar bat bay bed bee beg bell
belt bend best bet bid big bike bill bin bird bit bite blow blue boat body bold bolt bone book boot born boss both bow bowl
box boy brag bran bred brim bud bug bull bump bun burn bus bush busy but buy cab cafe cage cake call calm camp can cap car
card care cart case cash cat cave cell chat chef chin chip city clam clap clay clip club coal coat code coin cold cook cool
copy cord core corn cost cow crab crew crop crow cry cub cube cup curb cure cut dad dam damp dare dark dash data date dawn
day deal dear deck deep deer den desk dew dial dice dig dim dine dip dirt dish dive dock dog doll dome door dot dove down
draw drop drum dry duck due dug dull dune dusk dust duty each ear earn east easy eat echo edge eel egg ego elf elk elm end
envy era even exam exit eye face fact fade fair fall fame fan far farm fast fate fear fed fee feet fern few fig file fill
film find fine fire firm fish fit five flag flat flea flew flip flow flu fly foam fog fold folk food fool foot fork form
fort fox free frog fry fuel full fun fund fur gain game gap gas gate gear gem gift girl give glad glow glue goal goat gold
golf good gown grab gray grew grid grin grip grow gulf gum gun gut guy gym hail hair half hall ham hand hang hard harm hat
hawk hay head heal heap heat heel hen herb herd hero hid high hike hill hint hip hire hit hive hold hole home honk hood hook
hop hope horn host hot hour hub hue hug huge hum hunt hurt hut ice icon idea inch ink inn iron item jam jar jaw jazz jet job
jog join joke joy jug jump jury just keen keep key kick kid kind king kiss kit kite knee knot know lab lace lake lamb lamp
land lane lap large last late law lawn lazy lead leaf lean leap left leg lemon lend lens less lid lie life lift like lime
line link lion lip list live load loaf loan lock log logo lone long look loop lord lost loud love low luck lump lung mad
mail main make male mall man many map mark mask mass mat max meal meat melt menu mess mice mild mile milk mill mind mine
mint mix moan mob mood moon more moss most moth move much mud mug must myth nail name nap navy near neat neck need nest net
new news next nice nine nod noon nose note noun now nut oak oar oat odd off oil old one onion open orb ore our oval oven
over owl own pace pack page pail pain pair palm pan park part pass past path paw pea peak pear pen pet pick pie pig pile
pill pin pine pink pipe pit plan play plot plow plug plum plus pod poem poet pole poll pond pony pool poor pop pork port
pose post pot pour pray prey puff pull pump pup pure push put quiz race raft rag rail rain ram ramp ran rank rare rat rate
raw ray read real red reef rent rest rib rice rich ride rim ring rink riot rip ripe rise risk road roar rob rock rod role
roll roof room root rope rose row rub rude rug ruin rule run rush rust sad safe sage said sail salt same sand sap sat save
saw say scar sea seal seat seed seek sell send set ship shoe shop shot show shut shy side sign silk sing sink sip sit six
size ski skin skip sky slam sled slim slip slow snap snow soap sob sock soda sofa soft soil sold solo song soon sort soul
soup sour spin spot spy stag star stay stem step stew stir stop sub such suit sum sun sure surf swan swim tab tag tail take
tale talk tall tan tank tap tape tar task taste tax tea team tear tell ten tent term test text than thaw them then thin
this tick tide tie tile till time tin tiny tip tire toad toe toll tomb ton tone tool top torn toss tour tow town toy tram
trap tray tree trek trim trio trip true try tub tube tug tuna tune turn twig twin two type ugly unit urn use vale van vase
vast veil vein vent verb very vest vet vex view vine visa vote wag wait walk wall want war warm wart wash wasp wave wax way
weak wear web weed week well went west wet whale what wheel when whip who why wide wife wig wild will win wind wine wing
wink wipe wire wise wish wolf won wood wool word work worm wow wrap yak yam yard yarn year yell yes yet yoga yolk you zero
zinc zip zone zoo about above actor adult agent alarm album angel angle apple arena armor aroma award bacon badge baker
basic beach beard begin berry birth black blank blaze bloom board boost brain brave bread brick bride brief bring broom
brown brush build cabin cable camel candy cargo chain chair chalk charm chess chest chief child chili civil class clean
clerk cliff clock cloud coach coast cocoa coral couch count court cover crane cream crown curve daily dairy dance depth
diary dough draft drama dream dress drink drive eagle early earth elbow elder empty entry equal event extra fairy faith
favor fence fever field fifty final first flame flash fleet flock floor flour fluid flute focus force forum frame fresh
front frost fruit ghost giant glass globe glory glove grace grade grain grand grape graph grass great green group guard
guest guide habit happy heart heavy hobby honey horse hotel house human humor ideal image index jelly jewel judge juice
knife label laser laugh layer learn level light limit local logic lucky lunch magic major maple march match medal melon
metal minor mixer model money month moral motor mount mouse mouth movie music night noble noise north novel nurse ocean
offer olive opera orbit order other owner paint panel paper party pasta patch pause peace peach pearl penny phone photo
piano piece pilot pizza place plain plane plant plate poet point polar porch pound power price pride prime print prize
proud puppy queen quick quiet quilt radio ranch range rapid raven ready rhyme rider right rival river roast robin robot
round route royal ruler salad sauce scale scarf scene scent scoop score scout seven shade shape share shark sharp sheep
sheet shelf shell shine shirt shore short skate skill skirt sleep slice slide small smart smile smoke snack snake solar
solid sound south space spark spice spoon sport squad stage stamp stand steam steel stick stone store storm story stove
straw study style sugar sunny sweet swift swing sword table teeth theme thing third thumb tiger title toast today token
torch total touch tower track trade trail train treat trend trial tribe truck trunk trust truth tulip tutor twist uncle
union urban usual valid value vapor video visit vital vivid voice wagon waist watch water weave wheat white whole width
woman world wrist wrong yacht young youth zebra
"""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def is_held_out(word: str) -> bool:
    """True for one word in eight, always the same ones: they are never drawn for training, not even by chance.

    >>> is_held_out("ARC") == is_held_out("ARC")
    True
    """
    return zlib.crc32(word.encode()) % 8 == 0


def _of_length(words: Sequence[str]) -> dict[int, tuple[str, ...]]:
    return {n: tuple(w for w in words if len(w) == n) for n in range(3, 6)}


WORDS = tuple(sorted({w.upper() for w in _COMMON.split()}))
SEEN = _of_length([w for w in WORDS if not is_held_out(w)])
HELD_OUT = _of_length([w for w in WORDS if is_held_out(w)])


def training_word(rng: random.Random, length: int) -> str:
    """A common word or, as often, random letters; never a held-out word."""
    if rng.random() < 0.5:
        return rng.choice(SEEN[length])
    while True:
        word = "".join(rng.choices(LETTERS, k=length))
        if not is_held_out(word):
            return word
