"""Names of one substance or thing: what is traditional, retained or abbreviated, beside what is systematic.

Sources: the retained and the general names of the IUPAC recommendations, organic (2013, chapters P-2 to P-6) and
inorganic (2005, tables I, IX and X), and the names that textbooks have for salts, minerals' compounds and oxides.
Covered: substances that questions of schools and first university years ask for, names built from them (esters, salts,
halides, alcohols and amines of common groups, "ortho" and its like), and the terms of `terms`.
Not covered: a nomenclature. Names that mean several things (ether, lime, propanol), or a mixture, stand in no group.
"""

from __future__ import annotations

import re
from functools import cache

from megatron_rl.rewards.science.forms import in_one_form
from megatron_rl.rewards.science.terms import TERMS

# A line has the names of one substance, and behind the colon its formulas, structural ones where it has isomers.
_SUBSTANCES = """
    butane | n-butane : C4H10 CH3CH2CH2CH3 CH3(CH2)2CH3
    2-methylpropane | isobutane | methylpropane : (CH3)3CH CH(CH3)3 CH3CH(CH3)CH3 (CH3)2CHCH3
    pentane | n-pentane : CH3CH2CH2CH2CH3 CH3(CH2)3CH3
    2-methylbutane | isopentane | methylbutane : (CH3)2CHCH2CH3 CH3CH(CH3)CH2CH3 CH3CH2CH(CH3)2
    2,2-dimethylpropane | neopentane | dimethylpropane : C(CH3)4 (CH3)4C
    hexane | n-hexane : CH3(CH2)4CH3
    2-methylpentane | isohexane
    2,2-dimethylbutane | neohexane
    heptane | n-heptane : CH3(CH2)5CH3
    octane | n-octane : CH3(CH2)6CH3
    2,2,4-trimethylpentane | isooctane
    ethene | ethylene : C2H4 CH2CH2 CH2=CH2 H2C=CH2
    propene | propylene | 1-propene : CH3CH=CH2 CH2=CHCH3 CH3CHCH2
    2-methylpropene | isobutylene | isobutene | methylpropene | 2-methyl-1-propene : (CH3)2C=CH2 CH2=C(CH3)2
    buta-1,3-diene | butadiene : CH2=CHCH=CH2
    2-methylbuta-1,3-diene | isoprene
    propadiene | allene | propa-1,2-diene
    ethyne | acetylene : C2H2 HCCH HC≡CH
    propyne | methylacetylene | 1-propyne
    but-2-yne | dimethylacetylene
    styrene | phenylethene | phenylethylene | vinylbenzene | ethenylbenzene : C6H5CH=CH2 C8H8
    toluene | methylbenzene | phenylmethane : C7H8 C6H5CH3
    ethylbenzene | phenylethane
    cumene | isopropylbenzene | 2-phenylpropane
    mesitylene | 1,3,5-trimethylbenzene
    o-xylene | 1,2-dimethylbenzene
    m-xylene | 1,3-dimethylbenzene
    p-xylene | 1,4-dimethylbenzene
    biphenyl | phenylbenzene | 1,1'-biphenyl
    pyridine | azabenzene | azine : C5H5N
    trichloromethane | chloroform : CHCl3
    tribromomethane | bromoform : CHBr3
    triiodomethane | iodoform : CHI3
    tetrachloromethane | carbon tetrachloride : CCl4
    dichloromethane | methylene chloride | methylene dichloride : CH2Cl2
    tetrafluoroethene | tetrafluoroethylene : C2F4 CF2=CF2
    1,2-dibromoethane | ethylene dibromide : CH2BrCH2Br BrCH2CH2Br
    1,2-dichloroethane | ethylene dichloride : CH2ClCH2Cl ClCH2CH2Cl
    polyethylene | polyethene | polythene
    polypropylene | polypropene
    polyvinyl chloride | polychloroethene | pvc
    polytetrafluoroethylene | polytetrafluoroethene | ptfe | teflon
    methanol | wood alcohol | carbinol : CH3OH CH4O
    ethanol | grain alcohol : C2H5OH CH3CH2OH C2H6O
    ethane-1,2-diol | ethylene glycol | glycol : HOCH2CH2OH C2H6O2 (CH2OH)2
    propane-1,2-diol | propylene glycol
    propane-1,2,3-triol | glycerol | glycerine | glycerin : C3H8O3 HOCH2CH(OH)CH2OH
    propane-1,2,3-triyl trinitrate | nitroglycerin | nitroglycerine | glyceryl trinitrate | trinitroglycerin
    phenol | hydroxybenzene | carbolic acid | benzenol : C6H5OH C6H6O
    benzene-1,2-diol | catechol | pyrocatechol | 1,2-dihydroxybenzene
    benzene-1,3-diol | resorcinol | 1,3-dihydroxybenzene
    benzene-1,4-diol | hydroquinone | quinol | 1,4-dihydroxybenzene
    2-methylphenol | o-cresol | 2-cresol
    3-methylphenol | m-cresol | 3-cresol
    4-methylphenol | p-cresol | 4-cresol
    2,4,6-trinitrophenol | picric acid
    2,4,6-trinitrotoluene | tnt | trinitrotoluene | 2-methyl-1,3,5-trinitrobenzene
    methoxymethane | dimethyl ether : CH3OCH3 (CH3)2O
    ethoxyethane | diethyl ether | ethyl ether : C2H5OC2H5 (C2H5)2O CH3CH2OCH2CH3
    methoxyethane | ethyl methyl ether | methyl ethyl ether : CH3OCH2CH3 CH3OC2H5 C2H5OCH3
    methoxybenzene | anisole | methyl phenyl ether | phenyl methyl ether : C6H5OCH3
    ethoxybenzene | phenetole | ethyl phenyl ether
    2-methoxy-2-methylpropane | methyl tert-butyl ether | tert-butyl methyl ether | mtbe
    oxirane | ethylene oxide | epoxyethane : C2H4O
    oxolane | tetrahydrofuran | thf : C4H8O
    methanal | formaldehyde : HCHO CH2O H2CO
    ethanal | acetaldehyde : CH3CHO
    propanal | propionaldehyde : CH3CH2CHO C2H5CHO
    butanal | butyraldehyde | n-butyraldehyde : CH3CH2CH2CHO C3H7CHO
    2-methylpropanal | isobutyraldehyde : (CH3)2CHCHO
    benzaldehyde | benzenecarbaldehyde : C6H5CHO C7H6O
    propenal | acrolein | prop-2-enal : CH2=CHCHO
    cinnamaldehyde | 3-phenylprop-2-enal | 3-phenylpropenal
    2-hydroxybenzaldehyde | salicylaldehyde
    4-hydroxy-3-methoxybenzaldehyde | vanillin
    trichloroethanal | chloral | trichloroacetaldehyde : CCl3CHO
    propanone | acetone | 2-propanone | dimethyl ketone : CH3COCH3 C3H6O (CH3)2CO
    butanone | 2-butanone | ethyl methyl ketone | methyl ethyl ketone | mek : CH3COC2H5 CH3COCH2CH3 C2H5COCH3
    2-pentanone | methyl propyl ketone | methyl n-propyl ketone
    3-pentanone | diethyl ketone : C2H5COC2H5 CH3CH2COCH2CH3
    3-methyl-2-butanone | methylbutanone | isopropyl methyl ketone | methyl isopropyl ketone
    4-methyl-2-pentanone | methyl isobutyl ketone | isobutyl methyl ketone | mibk
    acetophenone | methyl phenyl ketone | phenyl methyl ketone | 1-phenylethanone | phenylethanone
        | 1-phenyl-1-ethanone | 1-phenylethan-1-one : C6H5COCH3 CH3COC6H5
    benzophenone | diphenyl ketone | diphenylmethanone : C6H5COC6H5
    4-methylpent-3-en-2-one | mesityl oxide
    4-hydroxy-4-methylpentan-2-one | diacetone alcohol
    methanoic acid | formic acid : HCO2H CH2O2
    ethanoic acid | acetic acid : CH3CO2H C2H4O2 HC2H3O2
    propanoic acid | propionic acid : CH3CH2CO2H C2H5CO2H
    butanoic acid | butyric acid | n-butyric acid : CH3CH2CH2CO2H C3H7CO2H
    2-methylpropanoic acid | isobutyric acid | methylpropanoic acid : (CH3)2CHCO2H
    pentanoic acid | valeric acid
    hexanoic acid | caproic acid
    octanoic acid | caprylic acid
    decanoic acid | capric acid
    dodecanoic acid | lauric acid
    tetradecanoic acid | myristic acid
    hexadecanoic acid | palmitic acid : C15H31CO2H CH3(CH2)14CO2H
    octadecanoic acid | stearic acid : C17H35CO2H CH3(CH2)16CO2H
    oleic acid | cis-9-octadecenoic acid | (z)-octadec-9-enoic acid | cis-octadec-9-enoic acid
    ethanedioic acid | oxalic acid : H2C2O4 (CO2H)2 HO2CCO2H C2H2O4
    propanedioic acid | malonic acid : CH2(CO2H)2
    butanedioic acid | succinic acid
    pentanedioic acid | glutaric acid
    hexanedioic acid | adipic acid
    benzoic acid | benzenecarboxylic acid : C6H5CO2H C7H6O2
    benzene-1,2-dicarboxylic acid | phthalic acid
    benzene-1,3-dicarboxylic acid | isophthalic acid
    benzene-1,4-dicarboxylic acid | terephthalic acid
    2-hydroxypropanoic acid | lactic acid : CH3CH(OH)CO2H
    2-oxopropanoic acid | pyruvic acid : CH3COCO2H
    2-hydroxybenzoic acid | salicylic acid
    2-acetoxybenzoic acid | acetylsalicylic acid | 2-acetyloxybenzoic acid | aspirin
    2-hydroxypropane-1,2,3-tricarboxylic acid | citric acid
    2,3-dihydroxybutanedioic acid | tartaric acid
    2-hydroxybutanedioic acid | malic acid | hydroxybutanedioic acid
    maleic acid | cis-butenedioic acid | (z)-butenedioic acid | (z)-but-2-enedioic acid | cis-but-2-enedioic acid
    fumaric acid | trans-butenedioic acid | (e)-butenedioic acid | (e)-but-2-enedioic acid | trans-but-2-enedioic acid
    propenoic acid | acrylic acid | prop-2-enoic acid : CH2=CHCO2H
    phenylethanoic acid | phenylacetic acid
    cinnamic acid | 3-phenylprop-2-enoic acid | 3-phenylpropenoic acid
    chloroethanoic acid | chloroacetic acid | monochloroacetic acid : ClCH2CO2H CH2ClCO2H
    trichloroethanoic acid | trichloroacetic acid : CCl3CO2H
    trifluoroethanoic acid | trifluoroacetic acid | tfa : CF3CO2H
    aminoethanoic acid | glycine | aminoacetic acid | 2-aminoethanoic acid | 2-aminoacetic acid : H2NCH2CO2H NH2CH2CO2H
    2-aminopropanoic acid | alanine : CH3CH(NH2)CO2H
    4-methylbenzenesulfonic acid | toluene-4-sulfonic acid | p-toluenesulfonic acid | tosic acid
    acetic anhydride | ethanoic anhydride : (CH3CO)2O
    acetyl chloride | ethanoyl chloride : CH3COCl
    benzoyl chloride | benzenecarbonyl chloride : C6H5COCl
    ethyl acetate | ethyl ethanoate : CH3CO2C2H5 CH3CO2CH2CH3
    methyl acetate | methyl ethanoate : CH3CO2CH3
    methyl salicylate | methyl 2-hydroxybenzoate | oil of wintergreen
    acetamide | ethanamide : CH3CONH2
    benzamide | benzenecarboxamide : C6H5CONH2
    acetanilide | n-phenylacetamide : C6H5NHCOCH3
    n,n-dimethylformamide | dimethylformamide | dmf
    dimethyl sulfoxide | dmso | methylsulfinylmethane
    urea | carbamide : CO(NH2)2 (NH2)2CO H2NCONH2
    acetonitrile | ethanenitrile | methyl cyanide | cyanomethane : CH3CN
    propanenitrile | propionitrile | ethyl cyanide : C2H5CN CH3CH2CN
    propenenitrile | acrylonitrile | prop-2-enenitrile : CH2=CHCN
    benzonitrile | benzenecarbonitrile | phenyl cyanide | cyanobenzene : C6H5CN
    nitrobenzene | oil of mirbane : C6H5NO2
    methanamine | methylamine | aminomethane : CH3NH2
    ethanamine | ethylamine | aminoethane : C2H5NH2 CH3CH2NH2
    n-methylmethanamine | dimethylamine : (CH3)2NH CH3NHCH3
    n,n-dimethylmethanamine | trimethylamine : (CH3)3N N(CH3)3
    n-ethylethanamine | diethylamine : (C2H5)2NH
    n,n-diethylethanamine | triethylamine : (C2H5)3N
    aniline | phenylamine | benzenamine | aminobenzene : C6H5NH2 C6H7N
    n-phenylaniline | diphenylamine
    4-methylaniline | p-toluidine | 4-toluidine
    2-methylaniline | o-toluidine | 2-toluidine
    ethane-1,2-diamine | ethylenediamine | 1,2-diaminoethane
    hexane-1,6-diamine | hexamethylenediamine | 1,6-diaminohexane | 1,6-hexanediamine
    2-aminoethanol | ethanolamine
    benzenediazonium chloride | phenyldiazonium chloride : C6H5N2Cl
    glucose | d-glucose | dextrose | blood sugar | grape sugar : C6H12O6
    fructose | d-fructose | levulose | fruit sugar
    sucrose | table sugar | cane sugar : C12H22O11
    lactose | milk sugar
    maltose | malt sugar
    water | dihydrogen monoxide | oxidane : H2O
    ammonia | azane : NH3
    phosphine | phosphane : PH3
    dinitrogen monoxide | nitrous oxide | laughing gas : N2O
    nitrogen monoxide | nitric oxide : NO
    carbonyl chloride | phosgene : COCl2
    trichloronitromethane | chloropicrin : CCl3NO2
    ozone | trioxygen : O3
    solid carbon dioxide | dry ice
    sulfuric acid | oil of vitriol : H2SO4
    nitric acid | aqua fortis : HNO3
    hydrochloric acid | muriatic acid : HCl
    hydrogen cyanide | prussic acid | hydrocyanic acid : HCN
    phosphoric acid | orthophosphoric acid : H3PO4
    sodium chloride | table salt | common salt | rock salt : NaCl
    sodium hydroxide | caustic soda | lye : NaOH
    potassium hydroxide | caustic potash : KOH
    sodium carbonate | soda ash : Na2CO3
    sodium carbonate decahydrate | washing soda : Na2CO3.10H2O
    sodium bicarbonate | baking soda : NaHCO3
    calcium oxide | quicklime | quick lime | burnt lime : CaO
    calcium hydroxide | slaked lime | hydrated lime : Ca(OH)2
    calcium sulfate dihydrate | gypsum : CaSO4.2H2O
    calcium sulfate hemihydrate | plaster of paris : CaSO4.0.5H2O 2CaSO4.H2O CaSO4.1/2H2O
    magnesium sulfate heptahydrate | epsom salt : MgSO4.7H2O
    sodium sulfate decahydrate | glauber's salt : Na2SO4.10H2O
    copper(ii) sulfate pentahydrate | blue vitriol : CuSO4.5H2O
    iron(ii) sulfate heptahydrate | green vitriol : FeSO4.7H2O
    zinc sulfate heptahydrate | white vitriol : ZnSO4.7H2O
    potassium nitrate | saltpeter | saltpetre | niter | nitre : KNO3
    sodium nitrate | chile saltpeter | chile saltpetre : NaNO3
    ammonium chloride | sal ammoniac : NH4Cl
    silver nitrate | lunar caustic : AgNO3
    mercury(i) chloride | calomel : Hg2Cl2
    mercury(ii) chloride | corrosive sublimate : HgCl2
    mercury(ii) sulfide | cinnabar : HgS
    lead(ii) sulfide | galena : PbS
    lead(ii) oxide | litharge : PbO
    lead(ii,iv) oxide | red lead | minium | trilead tetroxide : Pb3O4
    iron(ii,iii) oxide | magnetite | triiron tetroxide : Fe3O4
    iron(iii) oxide | hematite : Fe2O3
    iron disulfide | pyrite | iron pyrites | fool's gold : FeS2
    manganese(iv) oxide | manganese dioxide | pyrolusite : MnO2
    calcium fluoride | fluorite | fluorspar : CaF2
    barium sulfate | barite | barytes : BaSO4
    sodium hexafluoroaluminate | cryolite : Na3AlF6
    aluminum oxide | alumina | corundum : Al2O3
    magnesium oxide | magnesia : MgO
    silicon dioxide | silica : SiO2
    silicon carbide | carborundum : SiC
    calcium carbide | calcium acetylide : CaC2
    hydronium | oxonium | oxidanium : H3O^+
"""
# Group, halide with {} for its prefix, alcohol, amine, formulas; several names with a comma between.
_GROUPS = """
    methyl ; {}methane ; methanol ; methanamine ; CH3
    ethyl ; {}ethane ; ethanol ; ethanamine ; CH3CH2 C2H5
    propyl, n-propyl ; 1-{}propane ; propan-1-ol, n-propanol ; propan-1-amine ; CH3CH2CH2
    isopropyl ; 2-{}propane ; propan-2-ol, isopropanol ; propan-2-amine ; (CH3)2CH
    butyl, n-butyl ; 1-{}butane ; butan-1-ol, n-butanol ; butan-1-amine ; CH3CH2CH2CH2
    isobutyl ; 1-{}-2-methylpropane ; 2-methylpropan-1-ol, isobutanol ; 2-methylpropan-1-amine ; (CH3)2CHCH2
    sec-butyl ; 2-{}butane ; butan-2-ol, sec-butanol ; butan-2-amine ; CH3CH2CH(CH3)
    tert-butyl ; 2-{}-2-methylpropane ; 2-methylpropan-2-ol, tert-butanol ; 2-methylpropan-2-amine ; (CH3)3C
    cyclohexyl ; {}cyclohexane ; cyclohexanol ; cyclohexanamine ; C6H11
    phenyl ; {}benzene ; ; aniline ; C6H5
    benzyl ; ({}methyl)benzene ; phenylmethanol ; phenylmethanamine ; C6H5CH2
    vinyl ; {}ethene, {}ethylene ; ; ; CH2=CH
    allyl ; 3-{}prop-1-ene, 3-{}propene ; prop-2-en-1-ol, 2-propen-1-ol ; prop-2-en-1-amine ; CH2=CHCH2
"""
_HALIDES = {"fluoro": "F", "chloro": "Cl", "bromo": "Br", "iodo": "I"}
# Without branches, so that E is trans.
_ALKENE = (
    r"(?:(?:[0-9]-)?(?:but|pent|hex|hept|oct|non|dec)(?:-[0-9]-)?ene|1,2-di(?:fluoro|chloro|bromo|iodo)eth(?:yl)?ene)"
)
# Within names: what is written in two ways wherever it stands.
_REWRITTEN = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\b(?:t|tertiary|tert)[-. ]{0,2}but", "tert-but"),
        (r"\b(?:s|sec|secondary)[-. ]{0,2}but", "sec-but"),
        (r"\(?\b(?:propan-?2-?yl|2-propyl|1-methylethyl(?!e))\)?", "isopropyl"),
        (r"\(?\b(?:2-methylpropan-?2-?yl|1,1-dimethylethyl)\)?", "tert-butyl"),
        (r"\bferrous\b", "iron(ii)"), (r"\bferric\b", "iron(iii)"), (r"\bcuprous\b", "copper(i)"),
        (r"\bcupric\b", "copper(ii)"), (r"\bstannous\b", "tin(ii)"), (r"\bstannic\b", "tin(iv)"),
        (r"\bplumbous\b", "lead(ii)"), (r"\bplumbic\b", "lead(iv)"), (r"\bmercurous\b", "mercury(i)"),
        (r"\bmercuric\b", "mercury(ii)"), (r"\baurous\b", "gold(i)"), (r"\bauric\b", "gold(iii)"),
        (r"\bcobaltous\b", "cobalt(ii)"), (r"\bchromic\b(?! acid)", "chromium(iii)"),
        (r"\bmanganous\b", "manganese(ii)"),
        (r"\bhydrogen ?carbonate\b", "bicarbonate"), (r"\bhydrogen ?sulfate\b", "bisulfate"),
        (r"\bmethanoate\b", "formate"), (r"\bethanoate\b", "acetate"), (r"propanoate\b", "propionate"),
        (r"butanoate\b", "butyrate"), (r"\bethanedioate\b", "oxalate"), (r"\boctadecanoate\b", "stearate"),
        (r"\bhexadecanoate\b", "palmitate"), (r"ethanoyl\b", "acetyl"), (r"ethanamide\b", "acetamide"),
        (r"methanamide\b", "formamide"),
        (rf"^\(e\)-(?={_ALKENE}$)", "trans-"), (rf"^\(z\)-(?={_ALKENE}$)", "cis-"),
        (r"^(?:o|ortho)-(?=di[a-z]+benzene$)", "1,2-"), (r"^(?:m|meta)-(?=di[a-z]+benzene$)", "1,3-"),
        (r"^(?:p|para)-(?=di[a-z]+benzene$)", "1,4-"),
        (r"^ortho-(?=xylene|cresol|tolu)", "o-"), (r"^meta-(?=xylene|cresol|tolu)", "m-"),
        (r"^para-(?=xylene|cresol|tolu)", "p-"),
        (r"^(?:o|ortho)-(?=[a-z]+(?:phenol|toluene|aniline|benzoic acid|benzaldehyde|anisole)$)", "2-"),
        (r"^(?:m|meta)-(?=[a-z]+(?:phenol|toluene|aniline|benzoic acid|benzaldehyde|anisole)$)", "3-"),
        (r"^(?:p|para)-(?=[a-z]+(?:phenol|toluene|aniline|benzoic acid|benzaldehyde|anisole)$)", "4-"),
    )
)  # fmt: skip
_BETWEEN_LETTERS = re.compile(r"[\s\-()\[\]'’.]|,(?![0-9])")
MAX_NAME_CHARACTERS = 80


def one_name(text: str) -> str:
    """The name that stands for all of one thing, in small letters; a text of no such name as it is, in small letters.

    >>> one_name("Isobutane"), one_name("methylpropane"), one_name("sodium hydrogen carbonate"), one_name("Tea")
    ('2-methylpropane', '2-methylpropane', 'sodium bicarbonate', 'tea')
    """
    text = text.lower()
    if len(text) > MAX_NAME_CHARACTERS:
        return text
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    return _known()[0].get(_key(text), text)


def is_known(name: str) -> bool:
    """Whether `one_name` knows the thing that it gave this name."""
    return name in _known()[1]


def written(name: str) -> frozenset[str]:
    """The formulas of a substance by the name that `one_name` gives it, without underscores."""
    return _known()[1].get(name, frozenset())


@cache
def _known() -> tuple[dict[str, str], dict[str, frozenset[str]]]:
    """The first name of a group by the key of each of its names, and the formulas of a group by its first name."""
    firsts: dict[str, str] = {}
    formulas: dict[str, frozenset[str]] = {}
    joined = re.sub(r"\n\s*\|", " |", f"{_SUBSTANCES}\n{TERMS}")
    for line in [*joined.splitlines(), *_families()]:
        names, _, its = line.strip().partition(" : ")
        keys = [_key(name) for name in names.lower().split("|") if name.strip()]
        if not keys:
            continue
        first = next((firsts[key] for key in keys if key in firsts), names.partition("|")[0].strip().lower())
        firsts |= dict.fromkeys(keys, first)
        formulas[first] = formulas.get(first, frozenset()) | frozenset(its.split())
    return firsts, formulas


def _families() -> list[str]:
    """The halides, alcohols and amines of the common groups, a line each."""
    lines = []
    for row in _GROUPS.strip().splitlines():
        groups, halide, alcohol, amine, symbols = (
            [part.strip() for part in cell.split(",")] for cell in row.split(";")
        )
        heads = symbols[0].split()
        for prefix, symbol in _HALIDES.items():
            names = [name.format(prefix) for name in halide] + [f"{group} {prefix[:-1]}ide" for group in groups]
            lines.append(f"{' | '.join(names)} : {' '.join(head + symbol for head in heads)}")
        if alcohol[0]:
            names = alcohol + [f"{group} alcohol" for group in groups]
            lines.append(f"{' | '.join(names)} : {' '.join(head + 'OH' for head in heads)}")
        if amine[0]:
            names = [*amine, *(f"{group}amine" for group in groups), *(name.format("amino") for name in halide)]
            lines.append(f"{' | '.join(names)} : {' '.join(head + 'NH2' for head in heads)}")
    return lines


def _key(name: str) -> str:
    return _BETWEEN_LETTERS.sub("", in_one_form(name.strip().replace("'", "")))
