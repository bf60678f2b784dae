"""What the questions of English ask about: facts with one answer each, and plain words.

Countries whose capital is disputed, moved of late or shared between cities are left out, and so are those on two
continents; nouns are those whose plural is written in one way.
"""

from __future__ import annotations

__all__ = ["CAPITALS", "CONTINENTS", "NAMES", "PLURALS", "SYMBOLS", "THINGS", "WORDS"]


def _pairs(text: str) -> dict[str, str]:
    """Returns the pairs of a table written as "left: right; left: right"."""
    rows = (row.split(":") for row in " ".join(text.split()).split(";") if row.strip())
    return {left.strip(): right.strip() for left, right in rows}


def _words(text: str) -> list[str]:
    return text.split()


CAPITALS = _pairs("""
Afghanistan: Kabul; Algeria: Algiers; Argentina: Buenos Aires; Armenia: Yerevan; Australia: Canberra; Austria: Vienna;
Azerbaijan: Baku; Bangladesh: Dhaka; Belarus: Minsk; Belgium: Brussels; Brazil: Brasilia; Bulgaria: Sofia;
Cambodia: Phnom Penh; Canada: Ottawa; Chile: Santiago; China: Beijing; Colombia: Bogota; Croatia: Zagreb; Cuba: Havana;
Denmark: Copenhagen; Ecuador: Quito; Egypt: Cairo; Estonia: Tallinn; Ethiopia: Addis Ababa; Finland: Helsinki;
France: Paris; Georgia: Tbilisi; Germany: Berlin; Ghana: Accra; Greece: Athens; Hungary: Budapest; Iceland: Reykjavik;
India: New Delhi; Iran: Tehran; Iraq: Baghdad; Ireland: Dublin; Italy: Rome; Jamaica: Kingston; Japan: Tokyo;
Jordan: Amman; Kenya: Nairobi; Latvia: Riga; Lebanon: Beirut; Libya: Tripoli; Lithuania: Vilnius;
Malaysia: Kuala Lumpur; Malta: Valletta; Mexico: Mexico City; Mongolia: Ulaanbaatar; Morocco: Rabat; Nepal: Kathmandu;
Nigeria: Abuja; North Korea: Pyongyang; Norway: Oslo; Pakistan: Islamabad; Peru: Lima; Poland: Warsaw;
Portugal: Lisbon; Qatar: Doha; Romania: Bucharest; Russia: Moscow; Saudi Arabia: Riyadh; Senegal: Dakar;
Serbia: Belgrade; Somalia: Mogadishu; South Korea: Seoul; Spain: Madrid; Sudan: Khartoum; Sweden: Stockholm;
Syria: Damascus; Thailand: Bangkok; Tunisia: Tunis; Turkey: Ankara; Uganda: Kampala; Ukraine: Kyiv; Uruguay: Montevideo;
Venezuela: Caracas; Vietnam: Hanoi; Zambia: Lusaka; Zimbabwe: Harare
""")

CONTINENTS = _pairs("""
Albania: Europe; Algeria: Africa; Angola: Africa; Argentina: South America; Austria: Europe; Bangladesh: Asia;
Belgium: Europe; Benin: Africa; Bolivia: South America; Botswana: Africa; Brazil: South America; Bulgaria: Europe;
Cambodia: Asia; Cameroon: Africa; Canada: North America; Chad: Africa; Chile: South America; China: Asia;
Colombia: South America; Croatia: Europe; Cuba: North America; Denmark: Europe; Ecuador: South America;
Estonia: Europe; Ethiopia: Africa; Finland: Europe; France: Europe; Gabon: Africa; Germany: Europe; Ghana: Africa;
Greece: Europe; Guatemala: North America; Guyana: South America; Haiti: North America; Honduras: North America;
Hungary: Europe; Iceland: Europe; India: Asia; Iran: Asia; Iraq: Asia; Ireland: Europe; Italy: Europe;
Jamaica: North America; Japan: Asia; Kenya: Africa; Laos: Asia; Latvia: Europe; Liberia: Africa; Libya: Africa;
Lithuania: Europe; Madagascar: Africa; Malawi: Africa; Malaysia: Asia; Mali: Africa; Mexico: North America;
Mongolia: Asia; Morocco: Africa; Mozambique: Africa; Namibia: Africa; Nepal: Asia; Nicaragua: North America;
Niger: Africa; Nigeria: Africa; Norway: Europe; Oman: Asia; Pakistan: Asia; Panama: North America;
Paraguay: South America; Peru: South America; Poland: Europe; Portugal: Europe; Romania: Europe; Rwanda: Africa;
Senegal: Africa; Serbia: Europe; Slovakia: Europe; Slovenia: Europe; Somalia: Africa; Spain: Europe; Sudan: Africa;
Suriname: South America; Sweden: Europe; Switzerland: Europe; Syria: Asia; Thailand: Asia; Togo: Africa;
Tunisia: Africa; Uganda: Africa; Ukraine: Europe; Uruguay: South America; Uzbekistan: Asia; Venezuela: South America;
Vietnam: Asia; Yemen: Asia; Zambia: Africa; Zimbabwe: Africa
""")

SYMBOLS = _pairs("""
hydrogen: H; helium: He; lithium: Li; beryllium: Be; boron: B; carbon: C; nitrogen: N; oxygen: O; fluorine: F;
neon: Ne; sodium: Na; magnesium: Mg; aluminium: Al; silicon: Si; phosphorus: P; sulfur: S; chlorine: Cl; argon: Ar;
potassium: K; calcium: Ca; titanium: Ti; chromium: Cr; manganese: Mn; iron: Fe; cobalt: Co; nickel: Ni; copper: Cu;
zinc: Zn; gallium: Ga; arsenic: As; selenium: Se; bromine: Br; krypton: Kr; silver: Ag; tin: Sn; antimony: Sb;
iodine: I; xenon: Xe; barium: Ba; tungsten: W; platinum: Pt; gold: Au; mercury: Hg; lead: Pb; bismuth: Bi; radon: Rn;
radium: Ra; uranium: U; plutonium: Pu
""")

PLURALS = _pairs("""
animal: animals; apple: apples; army: armies; baby: babies; battle: battles; beach: beaches; berry: berries;
book: books; bottle: bottles; box: boxes; branch: branches; bridge: bridges; brush: brushes; bus: buses;
butterfly: butterflies; button: buttons; camera: cameras; candle: candles; castle: castles; cherry: cherries;
child: children; church: churches; city: cities; class: classes; country: countries; dish: dishes; doctor: doctors;
dragon: dragons; dress: dresses; engine: engines; family: families; farmer: farmers; fly: flies; foot: feet; fox: foxes;
friend: friends; garden: gardens; glass: glasses; goose: geese; hammer: hammers; hero: heroes; island: islands;
jacket: jackets; key: keys; kitchen: kitchens; knife: knives; lady: ladies; leaf: leaves; letter: letters; life: lives;
loaf: loaves; man: men; match: matches; monkey: monkeys; mountain: mountains; mouse: mice; office: offices;
orange: oranges; ox: oxen; party: parties; pencil: pencils; picture: pictures; planet: planets; potato: potatoes;
prince: princes; rabbit: rabbits; river: rivers; rocket: rockets; school: schools; season: seasons; shelf: shelves;
sister: sisters; soldier: soldiers; spider: spiders; story: stories; street: streets; table: tables; teacher: teachers;
thief: thieves; ticket: tickets; tiger: tigers; tomato: tomatoes; tooth: teeth; tower: towers; toy: toys;
turtle: turtles; valley: valleys; village: villages; watch: watches; window: windows; wizard: wizards; wolf: wolves;
woman: women
""")

WORDS = _words("""
apple bottle bread bridge butter button camera candle carpet castle cattle cherry circle coffee cotton country crystal
desert dinner doctor dragon engine family farmer feather finger flower forest friend garden ginger guitar hammer harbor
helmet island jacket jungle kettle kitchen ladder lemon letter lizard market marble meadow middle mirror monkey morning
mother mountain music narrow needle number office orange paper parrot pencil pepper picture pillow planet pocket poet
potato prince purple rabbit railway ribbon river rocket salad sailor school season second shadow silver sister soldier
spider spring square stone storm street sugar summer sunset table teacher temple thunder ticket tiger tomato tower
travel turtle valley velvet village violin wagon water weather window winter wizard wonder yellow
""")

NAMES = _words("Anna Ben Clara Dan Emma Frank Grace Henry Ida Jack Kate Leo Mary Nick Olga Paul Rosa Sam Tina Victor")
THINGS = _words("apples books buttons cards coins cups eggs flowers keys letters marbles pencils shells stamps tickets")
