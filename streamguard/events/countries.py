"""Countries by the codes and English names of ISO 3166, and by their other common names: a table."""

from __future__ import annotations

_TABLE = """
AD AND andorra|principality of andorra
AE ARE united arab emirates|uae|emirates
AF AFG afghanistan|islamic republic of afghanistan
AG ATG antigua and barbuda
AI AIA anguilla
AL ALB albania|republic of albania
AM ARM armenia|republic of armenia
AO AGO angola|republic of angola
AQ ATA antarctica
AR ARG argentina|argentine republic
AS ASM american samoa|samoa american|samoa
AT AUT austria|republic of austria|osterreich
AU AUS australia
AW ABW aruba
AX ALA aland islands
AZ AZE azerbaijan|republic of azerbaijan
BA BIH bosnia and herzegovina|republic of bosnia and herzegovina
BB BRB barbados
BD BGD bangladesh|peoples republic of bangladesh
BE BEL belgium|kingdom of belgium
BF BFA burkina faso
BG BGR bulgaria|republic of bulgaria
BH BHR bahrain|kingdom of bahrain
BI BDI burundi|republic of burundi
BJ BEN benin|republic of benin
BL BLM saint barthelemy|st barthelemy
BM BMU bermuda
BN BRN brunei darussalam|brunei
BO BOL bolivia
BQ BES bonaire sint eustatius and saba|sint eustatius and saba bonaire|bonaire|caribbean nl
BR BRA brazil|federative republic of brazil|brasil
BS BHS bahamas|commonwealth of bahamas
BT BTN bhutan|kingdom of bhutan
BV BVT bouvet island
BW BWA botswana|republic of botswana
BY BLR belarus|republic of belarus
BZ BLZ belize
CA CAN canada
CC CCK cocos keeling islands|cocos
CD COD congo democratic republic of|democratic republic of congo|congo kinshasa|dr congo|drc|congo dem rep
CF CAF central african republic|central african rep
CG COG congo|republic of congo|congo brazzaville|congo rep
CH CHE switzerland|swiss confederation|schweiz
CI CIV cote divoire|republic of cote divoire|ivory coast
CK COK cook islands
CL CHL chile|republic of chile
CM CMR cameroon|republic of cameroon
CN CHN china|peoples republic of china
CO COL colombia|republic of colombia
CR CRI costa rica|republic of costa rica
CU CUB cuba|republic of cuba
CV CPV cabo verde|republic of cabo verde|cape verde
CW CUW curacao
CX CXR christmas island
CY CYP cyprus|republic of cyprus
CZ CZE czechia|czech republic
DE DEU germany|federal republic of germany|deutschland
DJ DJI djibouti|republic of djibouti
DK DNK denmark|kingdom of denmark|danmark
DM DMA dominica|commonwealth of dominica
DO DOM dominican republic
DZ DZA algeria|peoples democratic republic of algeria
EC ECU ecuador|republic of ecuador
EE EST estonia|republic of estonia
EG EGY egypt|arab republic of egypt
EH ESH western sahara
ER ERI eritrea|state of eritrea
ES ESP spain|kingdom of spain|espana
ET ETH ethiopia|federal democratic republic of ethiopia
FI FIN finland|republic of finland
FJ FJI fiji|republic of fiji
FK FLK falkland islands malvinas|falkland islands
FM FSM micronesia federated states of|federated states of micronesia|micronesia
FO FRO faroe islands
FR FRA france|french republic
GA GAB gabon|gabonese republic
GB GBR united kingdom|uk|great britain|britain|england|scotland|wales|northern ireland|britain uk
GD GRD grenada
GE GEO georgia
GF GUF french guiana
GG GGY guernsey
GH GHA ghana|republic of ghana
GI GIB gibraltar
GL GRL greenland
GM GMB gambia|republic of gambia
GN GIN guinea|republic of guinea
GP GLP guadeloupe
GQ GNQ equatorial guinea|republic of equatorial guinea
GR GRC greece|hellenic republic|el|hellas
GS SGS south georgia and south sandwich islands
GT GTM guatemala|republic of guatemala
GU GUM guam
GW GNB guinea bissau|republic of guinea bissau
GY GUY guyana|republic of guyana
HK HKG hong kong
HM HMD mcdonald islands
HN HND honduras|republic of honduras
HR HRV croatia|republic of croatia
HT HTI haiti|republic of haiti
HU HUN hungary
ID IDN indonesia|republic of indonesia
IE IRL ireland
IL ISR israel|state of israel
IM IMN isle of man
IN IND india|republic of india
IO IOT british indian ocean territory
IQ IRQ iraq|republic of iraq
IR IRN iran islamic republic of|islamic republic of iran|iran
IS ISL iceland|republic of iceland
IT ITA italy|italian republic|italia
JE JEY jersey
JM JAM jamaica
JO JOR jordan|hashemite kingdom of jordan
JP JPN japan
KE KEN kenya|republic of kenya
KG KGZ kyrgyzstan|kyrgyz republic
KH KHM cambodia|kingdom of cambodia
KI KIR kiribati|republic of kiribati
KM COM comoros|union of comoros
KN KNA saint kitts and nevis|st kitts and nevis
KP PRK korea democratic peoples republic of|democratic peoples republic of korea|north korea|korea north
KR KOR korea republic of|republic of korea|south korea|korea south|korea
KW KWT kuwait|state of kuwait
KY CYM cayman islands
KZ KAZ kazakhstan|republic of kazakhstan
LA LAO lao peoples democratic republic|laos
LB LBN lebanon|lebanese republic
LC LCA saint lucia|st lucia
LI LIE liechtenstein|principality of liechtenstein
LK LKA sri lanka|democratic socialist republic of sri lanka
LR LBR liberia|republic of liberia
LS LSO lesotho|kingdom of lesotho
LT LTU lithuania|republic of lithuania
LU LUX luxembourg|grand duchy of luxembourg
LV LVA latvia|republic of latvia
LY LBY libya
MA MAR morocco|kingdom of morocco
MC MCO monaco|principality of monaco
MD MDA moldova republic of|republic of moldova|moldova
ME MNE montenegro
MF MAF saint martin french part|saint martin|st martin french|st martin
MG MDG madagascar|republic of madagascar
MH MHL marshall islands|republic of marshall islands
MK MKD north macedonia|republic of north macedonia|macedonia
ML MLI mali|republic of mali
MM MMR myanmar|republic of myanmar|burma|myanmar burma
MN MNG mongolia
MO MAC macao|macao special administrative region of china|macau
MP MNP northern mariana islands|commonwealth of northern mariana islands
MQ MTQ martinique
MR MRT mauritania|islamic republic of mauritania
MS MSR montserrat
MT MLT malta|republic of malta
MU MUS mauritius|republic of mauritius
MV MDV maldives|republic of maldives
MW MWI malawi|republic of malawi
MX MEX mexico|united mexican states
MY MYS malaysia
MZ MOZ mozambique|republic of mozambique
NA NAM namibia|republic of namibia
NC NCL new caledonia
NE NER niger|republic of niger
NF NFK norfolk island
NG NGA nigeria|federal republic of nigeria
NI NIC nicaragua|republic of nicaragua
NL NLD netherlands|kingdom of netherlands|holland
NO NOR norway|kingdom of norway|norge
NP NPL nepal|federal democratic republic of nepal
NR NRU nauru|republic of nauru
NU NIU niue
NZ NZL new zealand
OM OMN oman|sultanate of oman
PA PAN panama|republic of panama
PE PER peru|republic of peru
PF PYF french polynesia
PG PNG papua new guinea|independent state of papua new guinea
PH PHL philippines|republic of philippines
PK PAK pakistan|islamic republic of pakistan
PL POL poland|republic of poland|polska
PM SPM saint pierre and miquelon|st pierre and miquelon
PN PCN pitcairn
PR PRI puerto rico
PS PSE palestine state of|state of palestine|palestine
PT PRT portugal|portuguese republic
PW PLW palau|republic of palau
PY PRY paraguay|republic of paraguay
QA QAT qatar|state of qatar
RE REU reunion
RO ROU romania
RS SRB serbia|republic of serbia
RU RUS russian federation|russia
RW RWA rwanda|rwandese republic
SA SAU saudi arabia|kingdom of saudi arabia
SB SLB solomon islands
SC SYC seychelles|republic of seychelles
SD SDN sudan|republic of sudan
SE SWE sweden|kingdom of sweden|sverige
SG SGP singapore|republic of singapore
SH SHN ascension and tristan da cunha saint helena|saint helena|st helena
SI SVN slovenia|republic of slovenia
SJ SJM svalbard and jan mayen
SK SVK slovakia|slovak republic
SL SLE sierra leone|republic of sierra leone
SM SMR san marino|republic of san marino
SN SEN senegal|republic of senegal
SO SOM somalia|federal republic of somalia
SR SUR suriname|republic of suriname
SS SSD south sudan|republic of south sudan
ST STP sao tome and principe|democratic republic of sao tome and principe
SV SLV el salvador|republic of el salvador
SX SXM sint maarten dutch part|sint maarten|st maarten dutch|st maarten
SY SYR syrian arab republic|syria
SZ SWZ eswatini|kingdom of eswatini|swaziland|eswatini swaziland
TC TCA turks and caicos islands|turks and caicos is
TD TCD chad|republic of chad
TF ATF french southern territories|french s terr
TG TGO togo|togolese republic
TH THA thailand|kingdom of thailand
TJ TJK tajikistan|republic of tajikistan
TK TKL tokelau
TL TLS timor leste|democratic republic of timor leste|east timor
TM TKM turkmenistan
TN TUN tunisia|republic of tunisia
TO TON tonga|kingdom of tonga
TR TUR turkiye|republic of turkiye|turkey
TT TTO trinidad and tobago|republic of trinidad and tobago
TV TUV tuvalu
TW TWN taiwan province of china|province of china taiwan|taiwan
TZ TZA tanzania united republic of|united republic of tanzania|tanzania
UA UKR ukraine
UG UGA uganda|republic of uganda
UM UMI united states minor outlying islands
US USA united states|united states of america|u s|u s a|america
UY URY uruguay|eastern republic of uruguay
UZ UZB uzbekistan|republic of uzbekistan
VA VAT holy see vatican city state|holy see|vatican|vatican city
VC VCT saint vincent and grenadines|st vincent
VE VEN venezuela bolivarian republic of|bolivarian republic of venezuela|venezuela
VG VGB virgin islands british|british virgin islands|virgin islands uk|virgin islands
VI VIR virgin islands u s|u s virgin islands|us virgin islands|virgin islands us|virgin islands
VN VNM viet nam|vietnam|socialist republic of viet nam
VU VUT vanuatu|republic of vanuatu
WF WLF wallis and futuna
WS WSM independent state of samoa|samoa western
XK XKX kosovo
YE YEM yemen|republic of yemen
YT MYT mayotte
ZA ZAF south africa|republic of south africa
ZM ZMB zambia|republic of zambia
ZW ZWE zimbabwe|republic of zimbabwe
"""

CODES = frozenset(line[:2] for line in _TABLE.split("\n") if line)
"""Two-letter codes, ISO 3166-1 alpha-2."""

CODE_OF = {
    name: line[:2]
    for line in _TABLE.split("\n")
    if line
    for name in (line[:2].lower(), line[3:6].lower(), *line[7:].split("|"))
}
"""Two-letter code by code of two or three letters and by name: in lower case, without accents, signs and `the`.

Examples
--------
>>> CODE_OF["germany"], CODE_OF["deu"], CODE_OF["de"], CODE_OF["uk"], CODE_OF["el"]
('DE', 'DE', 'DE', 'GB', 'GR')
"""
