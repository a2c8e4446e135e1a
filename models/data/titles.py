"""Invented titles for the simulated catalogue of StreamRec.

Titles are composed from the word lists below. Titles, places and people are fictitious; any likeness to real ones is
by chance.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


PLACES = _words(
    "Halvenmoor,Port Ellery,Saint Aldous,Brindle Bay,Kestrel Point,Varnholm,Lake Orrin,Tamsin Falls,Old Quarry Road,"
    "Marrow Street,Ashgrove,Cape Linnet,Dunmarrow,Fennick Island,Greyharbour,Hollin Vale,Ister,Juniper Flats,"
    "Lower Wexcombe,Mirefield,North Calder,Ostrow Lane,Pellworm,Quillon,Redfern Heights,Sallow Creek,Thornby,"
    "Upper Maren,Vesper Hill,Windrush End,Yarrow Pass,Zennor Gate"
)
FIRST_NAMES = _words(
    "Ada,Bruno,Celeste,Dario,Edda,Farid,Greta,Hugo,Imani,Jonas,Kaia,Leandro,Mireille,Nadim,Odile,Pavel,Quentin,Rosa,"
    "Soren,Tilda,Ulla,Viktor,Wren,Xenia,Yusuf,Zora"
)
SURNAMES = _words(
    "Abernook,Bellacourt,Castellane,Dunleavy,Eastermark,Fairweather,Grimsholt,Halloran,Ivarsen,Jellicoe,Kowalke,"
    "Lindqvist,Moravec,Nightingale,Okonjo,Pemberley,Quist,Rademaker,Silvestri,Tolliver,Umberleigh-Hale,Vandermeer,"
    "Winterbourne,Yarwood"
)
NUMBERS = _words("Three,Four,Five,Six,Seven,Nine,Ten,Eleven,Twelve,Forty")
SHOW_SEQUELS = (": Season 2", ": Season 3", ": Season 4")
FILM_SEQUELS = _words(
    "The Return,Second Winter,Home Again,The Long Way Back,After the Storm,Unfinished Business,No Way Down,"
    "The Other Shore,Before Dawn,One Last Time,New Ground,Crossing Over"
)


class TitleStyle(NamedTuple):
    """The words and patterns of one category's titles, and whether its items are shows (seasons) or films (sequels).

    Placeholders of a pattern: {a} an adjective, {n} a noun, {p} a place, {f} a first name, {s} a surname, {k} a number.
    """

    adjectives: str
    nouns: str
    patterns: str
    is_show: bool


TITLE_STYLES: dict[str, TitleStyle] = {
    "Action": TitleStyle(
        "Burning,Broken,Iron,Silent,Final,Rogue,Blind,Scorched,Loaded,Black,Rapid,Fallen",
        "Convoy,Barricade,Fuse,Runway,Bullet,Outpost,Cargo,Strike,Freight,Detonator,Extraction,Blockade,Vanguard,Recoil",
        "{a} {n}|The {s} {n}|{n} at {p}|{k} Minutes to {p}|{a} {n} Protocol|No {n} Left",
        is_show=False,
    ),
    "Adventure": TitleStyle(
        "Lost,Hidden,Endless,Golden,Distant,Forgotten,Wild,Sunken,Uncharted,Windswept,Emerald,Salt",
        "Compass,Caravan,Lagoon,Atlas,Voyage,Summit,Expedition,Canyon,Archipelago,Lantern,Temple,Horizon,Passage,Map",
        "The {a} {n}|{f} and the {a} {n}|Beyond {p}|The {n} of {p}|{k} Days to {p}|{s}'s {n}",
        is_show=False,
    ),
    "Animation": TitleStyle(
        "Tiny,Paper,Bouncing,Moonlit,Curious,Wobbly,Sparkling,Cardboard,Sleepy,Upside-Down,Marvellous,Stripy",
        "Robot,Hedgehog,Cloud,Teapot,Dragonfly,Snowman,Submarine,Otter,Balloon,Penguin,Button,Kite,Marble,Fox",
        "{f} and the {a} {n}|The {a} {n}|{n} Club|{a} {n} Academy|Goodnight, {a} {n}|The {n} Who Lived in {p}",
        is_show=True,
    ),
    "Comedy": TitleStyle(
        "Awkward,Accidental,Mostly,Terrible,Unpaid,Perfectly,Overdue,Hopeless,Reluctant,Half-Baked,Polite,Borrowed",
        "Roommates,Landlord,Wedding,Interns,Neighbours,Bachelor,Reunion,Office,Cousins,Holiday,Tenants,Divorce,Couch,Choir",
        "The {a} {n}|{f} & {s}|{k} {n} and a Goat|My {a} {n}|{n} of {p}|Sorry About the {n}",
        is_show=True,
    ),
    "Cooking": TitleStyle(
        "Simmering,Rustic,Hungry,Salted,Smoky,Golden,Spicy,Midnight,Slow,Sunday,Sourdough,Bitter",
        "Kitchen,Table,Ladle,Bakery,Pantry,Skillet,Market,Oven,Harvest,Spoon,Feast,Bistro,Larder,Grill",
        "{f}'s {a} {n}|The {n} at {p}|{a} {n}|{k} Chefs, One {n}|The {p} {n}|Back to the {n} with {f}",
        is_show=True,
    ),
    "Crime": TitleStyle(
        "Cold,Crooked,Unmarked,Dirty,Second,Quiet,Shallow,Late,Guilty,Paid,Missing,Northern",
        "Ledger,Witness,Precinct,Alibi,Heist,Informant,Verdict,Getaway,Evidence,Syndicate,Warrant,Accomplice,Inspector,Docks",
        "The {p} {n}|{a} {n}|Detective {s}|{s} & {f}: {a} {n}|The {a} {n}|{n} on {p}",
        is_show=True,
    ),
    "Documentary": TitleStyle(
        "Inside,Untold,Plastic,Invisible,Analogue,Unequal,Open,Digital,Concrete,Public,Vanishing,Ordinary",
        "Factory,Archive,Border,Harbour,Hospital,Signal,Newsroom,Glacier,Bridge,Satellite,Railway,Orchestra,Strike,Library",
        "The {a} {n}|Inside the {n}|The {n} Files|{p}: A {n} Story|Who Owns the {n}?|{k} Years of {p}",
        is_show=False,
    ),
    "Drama": TitleStyle(
        "Quiet,Broken,Unspoken,Distant,Fragile,Tender,Long,Unwritten,Hollow,Borrowed,Faithful,Restless",
        "Daughters,Letters,Inheritance,Orchard,Silence,Promise,Tide,Household,Bridge,Confession,Winter,Harvest,Threshold,Garden",
        "The {a} {n}|The {n} of {p}|{s}'s {n}|What the {n} Knew|A {n} in {p}|{f}, Alone",
        is_show=False,
    ),
    "Family": TitleStyle(
        "Little,Big,Muddy,Brave,Noisy,Rainy,Best,Magic,Hungry,Secret,Jolly,Summer",
        "Treehouse,Puppy,Grandpa,Campers,Pony,Pancakes,Lighthouse,Backpack,Sleepover,Circus,Bicycle,Cabin,Parade,Tent",
        "{f} and the {a} {n}|The {s} Family {n}|A {a} {n} for {f}|The {a} {n} of {p}|{k} Days of {n}|Our {a} {n}",
        is_show=False,
    ),
    "Fantasy": TitleStyle(
        "Cursed,Silver,Thorned,Ancient,Shattered,Whispering,Frozen,Crimson,Hollow,Ashen,Veiled,Starless",
        "Throne,Oath,Dragon,Grimoire,Tower,Blade,Prophecy,Crown,Raven,Mirror,Forest,Witch,Kingdom,Gate",
        "The {a} {n}|{n} of {p}|The {n} and the {a} Queen|{f} of the {a} {n}|A {n} of Ash|The Last {n}",
        is_show=True,
    ),
    "History": TitleStyle(
        "Imperial,Last,Divided,Lost,Royal,Forgotten,Revolutionary,Buried,Colonial,Iron,Gilded,Medieval",
        "Dynasty,Treaty,Cathedral,Siege,Manuscript,Fleet,Empire,Parliament,Trade,Emperor,Fortress,Uprising,Scribe,Armada",
        "The {a} {n}|The {n} of {p}|{n}: The {a} Years|The Siege of {p}|{s}'s {n}|{k} Kings of {p}",
        is_show=False,
    ),
    "Horror": TitleStyle(
        "Pale,Rotting,Sleepless,Hollow,Buried,Crawling,Nameless,Drowned,Flickering,Locked,Starved,Whispering",
        "Cellar,Attic,Doll,Well,Orchard,Asylum,Visitor,Scarecrow,Nursery,Moth,Ritual,Basement,Congregation,Staircase",
        "The {a} {n}|Don't Open the {n}|The {n} at {p}|{a} Things|{k} Nights in {p}|What {f} Buried",
        is_show=False,
    ),
    "Music": TitleStyle(
        "Electric,Blue,Velvet,Midnight,Acoustic,Neon,Golden,Faded,Loud,Unplugged,Southern,Broken",
        "Strings,Jukebox,Chorus,Vinyl,Encore,Rhythm,Saxophone,Festival,Ballad,Amplifier,Serenade,Tour,Record,Drummer",
        "{a} {n}|Live from {p}|{f} {s}: {a} {n}|The {n} Sessions|The {p} {n}|One More {n}",
        is_show=False,
    ),
    "Mystery": TitleStyle(
        "Vanishing,Locked,Crooked,Unsigned,Seventh,Velvet,Foggy,Misplaced,Curious,Secret,Twisted,Absent",
        "Cipher,Portrait,Manor,Key,Guest,Librarian,Telegram,Clock,Stranger,Conservatory,Inheritor,Photograph,Envelope,Raven",
        "The {a} {n}|The {n} of {p}|{f} {s} Investigates|The {n} Wore Gloves|A {n} at {p}|The {p} Riddle",
        is_show=True,
    ),
    "Nature": TitleStyle(
        "Wild,Frozen,Living,Hidden,Deep,Ancient,Secret,Migrating,Untouched,Rising,Blue,Fragile",
        "Reef,Savanna,Wolves,Tundra,Rainforest,Ocean,Eagles,River,Elephants,Volcano,Wetlands,Desert,Whales,Meadow",
        "{a} {n}|The {n} of {p}|Planet of {n}|The {a} {n}|A Year Among {n}|{n}: The {a} World",
        is_show=True,
    ),
    "Reality": TitleStyle(
        "Ultimate,Real,Secret,Extreme,Honest,Blind,Rich,Unfiltered,Total,Instant,Rural,Perfect",
        "Makeover,Island,Mansion,Bargain,Matchmakers,Renovation,Roadtrip,Auction,Runway,Survivors,Bootcamp,Farmers,Garage,Swap",
        "The {p} {n}|{a} {n}|{n} Wars|{k} Strangers, One {n}|{n} with {f}|The {a} {n}",
        is_show=True,
    ),
    "Romance": TitleStyle(
        "Sweet,Second,Unexpected,Late,Summer,Stolen,Tender,Accidental,Winter,Faraway,Gentle,Hopeless",
        "Kiss,Letter,Bouquet,Proposal,Waltz,Vineyard,Promise,Bookshop,Postcard,Balcony,Heart,Duet,Ferry,Sunset",
        "The {a} {n}|{f} & {f2}|A {a} {n}|Love in {p}|The {n} at {p}|Yours, {f}",
        is_show=False,
    ),
    "Science Fiction": TitleStyle(
        "Orbital,Quantum,Synthetic,Distant,Last,Parallel,Binary,Silent,Infinite,Dark,Solar,Recursive",
        "Colony,Signal,Android,Horizon,Engine,Station,Paradox,Nebula,Memory,Cryosleep,Frontier,Machine,Beacon,Directive",
        "The {a} {n}|{n} {k}|{a} {n}|The {s} {n}|Beyond {n} {k}|{n} of {p}",
        is_show=True,
    ),
    "Sport": TitleStyle(
        "Final,Golden,Underdog,Extra,Home,Hard,Uphill,Winning,Muddy,Unbeaten,Lost,Second",
        "Season,Sprint,Goalkeeper,Peloton,Whistle,Marathon,Comeback,Coach,Round,League,Relay,Summit,Penalty,Champions",
        "The {a} {n}|{p} United: The {a} {n}|{n} by {n2}|Coach {s}|{k} Laps|The {n} of {p}",
        is_show=False,
    ),
    "Thriller": TitleStyle(
        "Double,Hidden,Last,Deadly,Silent,False,Glass,Narrow,Blind,Perfect,Dark,Borrowed",
        "Witness,Threat,Stranger,Motive,Hostage,Asset,Caller,Deadline,Passenger,Betrayal,Surveillance,Motel,Shadow,Pursuit",
        "The {a} {n}|{a} {n}|Nobody Leaves {p}|{k} Hours in {p}|The {n} from {p}|{s}'s {n}",
        is_show=False,
    ),
}  # fmt: skip
CATEGORIES = tuple(TITLE_STYLES)
_A_BEFORE_VOWEL = re.compile(r"\bA(?= [AEIOU])")


def franchise_titles(category: str, lengths: list[int], rng: np.random.Generator, taken: set[str]) -> list[list[str]]:
    """Draw the titles of one category: for each franchise, the list of its first part and its sequels in order.

    Args:
        category: name of the category.
        lengths: number of parts of each franchise.
        rng: source of random numbers.
        taken: titles already in use, which are not drawn again; the new titles are added.

    """
    style = TITLE_STYLES[category]
    words = {
        "a": _words(style.adjectives),
        "n": _words(style.nouns),
        "p": PLACES,
        "f": FIRST_NAMES,
        "s": SURNAMES,
        "k": NUMBERS,
    }
    patterns = style.patterns.split("|")
    franchises = []
    for length in lengths:
        while True:
            drawn = {letter: rng.choice(choices, size=2, replace=False) for letter, choices in words.items()}
            first = {letter: str(pair[0]) for letter, pair in drawn.items()}
            second = {letter + "2": str(pair[1]) for letter, pair in drawn.items()}
            title = patterns[int(rng.integers(len(patterns)))].format(**first, **second)
            title = _A_BEFORE_VOWEL.sub("An", title)
            if style.is_show:
                sequels = [title + suffix for suffix in SHOW_SEQUELS[: length - 1]]
            else:
                # The sequel of "Thornby: A Bridge Story" is "Thornby 2: Before Dawn".
                subtitles = rng.choice(FILM_SEQUELS, size=length - 1, replace=False)
                stem = title.split(": ")[0]
                sequels = [f"{stem} {part}: {subtitle}" for part, subtitle in enumerate(subtitles, start=2)]
            parts = [title, *sequels]
            if taken.isdisjoint(parts):
                break
        taken.update(parts)
        franchises.append(parts)
    return franchises
